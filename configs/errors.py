"""What a user can do wrong, as one family of errors.

    UserError              shown on one screen without a traceback; the program ends with exit code 2
    ├── ConfigError        a config file, a KEY=VALUE or a flag
    ├── PreflightError       what only torch can know: targets, weights, data
    ├── LaunchError        the machine or the cluster cannot run this plan
    └── RunError           a run folder: unknown, ambiguous, still running, damaged

Each carries one or more `Fault`s, so that a config with three mistakes is corrected in one go.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 80
SCREEN = 24
"""Lines of a terminal: what does not fit is said more briefly."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong: what, where, what was given, and what to do about it."""

    what: str
    where: str = ""
    given: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        rows = [("where", self.where), ("given", self.given), ("fix", self.remedy)]
        return "\n".join([hang("error: ", self.what), *(hang(f"  {name:<7}", text) for name, text in rows if text)])

    def brief(self) -> str:
        """The same in two lines or so, for one of many."""
        what = self.what
        if " must be " in what and self.given:
            what += f", not {self.given.partition(': ')[2] or self.given}"
        return hang("  ", f"{self.where}: {what}. {self.remedy}".removeprefix(": ").strip(), indent=4)


class UserError(Exception):
    """A mistake the user can correct. `str()` of it is the whole screen to show."""

    exit_code = 2

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        full = "\n\n".join(map(str, self.faults))
        if len(self.faults) == 1 or full.count("\n") < SCREEN:
            return full
        shown: list[str] = []
        for fault in self.faults:
            if sum(text.count("\n") + 1 for text in [*shown, fault.brief()]) > SCREEN - 3:
                break
            shown.append(fault.brief())
        if len(shown) < len(self.faults):
            shown.append(f"  ... and {len(self.faults) - len(shown)} more")
        return "\n".join([f"error: {len(self.faults)} things are wrong", *shown])


class ConfigError(UserError):
    """A config file, a KEY=VALUE or a flag says something that cannot be."""


class PreflightError(UserError):
    """Targets, weights or data that the config names are not there or do not fit."""


class LaunchError(UserError):
    """This machine or this cluster cannot run the plan."""


class RunError(UserError):
    """A run folder that is unknown, ambiguous, in use or damaged."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A remedy that names the valid name closest to `name`, or else all of them."""
    names = sorted(set(map(str, valid)))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Valid here: {', '.join(names)}." if names else "No name is valid here."


def hang(label: str, text: str, indent: int | None = None) -> str:
    """`text` behind `label`, wrapped to the terminal's width, its own line breaks kept. What follows the first line is
    indented by as much as the label is long, or by `indent`."""
    indent = len(label) if indent is None else indent
    lines = [
        part
        for line in text.splitlines()
        for part in textwrap.wrap(line, WIDTH - max(len(label), indent), break_long_words=False, break_on_hyphens=False)
        or [""]
    ]
    return label + f"\n{' ' * indent}".join(lines)

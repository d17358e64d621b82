"""Errors that a user can correct.

    UserError              shown on one screen without a traceback; the program ends with exit code 2
    ├── ConfigError        a config file, a KEY=VALUE or a flag is wrong
    ├── PreflightError     targets, weights or data are wrong; found by the preflight check, which imports torch
    ├── LaunchError        the machine or the cluster cannot run the plan
    └── RunError           a run folder is unknown, ambiguous, in use or damaged

Each has one or more `Fault`s, so that all mistakes in a config are reported at once.
"""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import takewhile

WIDTH = 80
LABEL, FIX = "error: ", "  fix    "
SCREEN = 24
"""Lines of a terminal: errors that do not fit are shortened."""
LONGEST = WIDTH * SCREEN
"""Characters of each text of a fault that are shown."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong: what, where, the given value, and how to fix it."""

    what: str
    where: str = ""
    given: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        rows = [("  where  ", self.where), ("  given  ", self.given), (FIX, self.remedy)]
        return "\n".join(hang(label, text if len(text) <= LONGEST else f"{text[:LONGEST]} ...")
                         for label, text in [(LABEL, self.what), *rows] if text)

    def brief(self) -> str:
        """The same in about two lines, for a list of many faults."""
        what = self.what
        if " must be " in what and self.given:
            what += f", not {self.given.partition(': ')[2] or self.given}"
        return hang("  ", f"{self.where}: {what}. {self.remedy}".removeprefix(": ").strip(), indent=4)


class UserError(Exception):
    """A mistake that the user can correct. `str()` of it is the text to show."""

    exit_code = 2

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        full = "\n\n".join(map(str, self.faults))
        if len(self.faults) == 1 or full.count("\n") < SCREEN:
            return full
        shown: list[str] = []
        remedies: set[str] = set()
        for fault in self.faults:
            text = (replace(fault, remedy="") if fault.remedy in remedies else fault).brief()
            if sum(one.count("\n") + 1 for one in [*shown, text]) > SCREEN - 3:
                break
            shown.append(text)
            remedies.add(fault.remedy)
        if len(shown) < len(self.faults):
            shown.append(f"  ... and {len(self.faults) - len(shown)} more")
        return "\n".join([f"error: {len(self.faults)} things are wrong", *shown])


class ConfigError(UserError):
    """A config file, a KEY=VALUE or a flag is wrong."""


class PreflightError(UserError):
    """Targets, weights or data in the config do not exist or do not fit."""


class LaunchError(UserError):
    """This machine or this cluster cannot run the plan."""


class RunError(UserError):
    """A run folder is unknown, ambiguous, in use or damaged."""


def headline(text: str) -> str:
    """What is wrong, in one line: from the text of an error, which is wrapped."""
    return unwrapped(text, LABEL) or (text.strip().splitlines() or [""])[0]


def unwrapped(text: str, label: str) -> str:
    """The first row with this label, in one line: from the text of an error, which is wrapped; '' if it has none."""
    rows = iter(text.splitlines())
    first = next((row for row in rows if row.startswith(label)), "")
    more = takewhile(lambda row: row.startswith(" " * len(label)), rows)
    return " ".join([first.removeprefix(label), *map(str.strip, more)])


def nearest(name: str, valid: Iterable[str]) -> str:
    """A remedy with the valid name that is most similar to `name`, or else with all valid names. A suffix such as .yaml
    is not compared: all files have it."""
    names = {_stem(text): text for text in sorted(set(map(str, valid)))}
    other_case = [one for one in names if one.lower() == _stem(name).lower()]
    close = other_case or difflib.get_close_matches(_stem(name), names, n=1)
    if close:
        return f"Did you mean '{names[close[0]]}'?"
    return f"Valid names: {', '.join(names.values())}." if names else "There are no valid names here."


def _stem(name: str) -> str:
    return name.removesuffix(".yaml")


def hang(label: str, text: str, indent: int | None = None) -> str:
    """`text` after `label`, wrapped to the terminal's width. Line breaks in the text are kept. Further lines are
    indented by the length of the label, or by `indent`."""
    indent = len(label) if indent is None else indent
    lines = [
        part
        for line in text.splitlines()
        for part in textwrap.wrap(line, WIDTH - max(len(label), indent), break_long_words=False, break_on_hyphens=False)
        or [""]
    ]
    return label + f"\n{' ' * indent}".join(lines)

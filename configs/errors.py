"""What a user can do wrong, as one family of errors.

    UserError              shown on one screen without a traceback; the program ends with exit code 2
    ├── ConfigError        a config file, a KEY=VALUE or a flag
    ├── PrepareError       what only torch can know: targets, weights, data
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


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong: what, where, what was given, and what to do about it."""

    what: str
    where: str = ""
    given: str = ""
    remedy: str = ""

    def __str__(self) -> str:
        rows = [("where", self.where), ("given", self.given), ("do", self.remedy)]
        return "\n".join([_hang("error: ", self.what), *(_hang(f"  {name:<7}", text) for name, text in rows if text)])


class UserError(Exception):
    """A mistake the user can correct. `str()` of it is the whole screen to show."""

    exit_code = 2

    def __init__(self, *faults: Fault) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.faults))


class ConfigError(UserError):
    """A config file, a KEY=VALUE or a flag says something that cannot be."""


class PrepareError(UserError):
    """Targets, weights or data that the config names are not there or do not fit."""


class LaunchError(UserError):
    """This machine or this cluster cannot run the plan."""


class RunError(UserError):
    """A run folder that is unknown, ambiguous, in use or damaged."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """A remedy that names the valid name closest to `name`, or else all of them."""
    names = sorted(map(str, valid))
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"Did you mean '{close[0]}'?"
    return f"Valid here: {', '.join(names)}." if names else "No name is valid here."


def _hang(label: str, text: str) -> str:
    """`text` behind `label`, wrapped to the terminal's width, its own line breaks kept."""
    lines = [
        part
        for line in text.splitlines()
        for part in textwrap.wrap(line, WIDTH - len(label), break_long_words=False, break_on_hyphens=False) or [""]
    ]
    return label + f"\n{' ' * len(label)}".join(lines)

"""Fields of the sections of a config. Bounds are in their metadata, where `faults.py` reads them."""

from __future__ import annotations

from dataclasses import field
from typing import Any

MISSING: Any = "???"
"""OmegaConf's marker of a required value. Not imported from it, because the import takes longer than --help."""


def at_least(minimum: float, default: Any = MISSING) -> Any:
    """A field whose value, if it is not null, is at least `minimum`."""
    return field(default=default, metadata={"at_least": minimum})


def above(bound: float, default: Any = MISSING) -> Any:
    """A field whose value, if it is not null, is greater than `bound`."""
    return field(default=default, metadata={"above": bound})


def path(default: Any = MISSING) -> Any:
    """A field whose value, if it is not null, is a path. Relative paths start from the current folder."""
    return field(default=default, metadata={"path": True})


def plain_name() -> Any:
    """A field whose value can be the name of a folder and of a job."""
    return field(default=MISSING, metadata={"plain_name": True})

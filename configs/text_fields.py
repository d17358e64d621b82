"""Short fields, such as "loss 0.1234", as lines of text that fit a terminal of 80 columns."""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Mapping
from typing import Any

from drumbeat.configs.errors import WIDTH


def wrapped(fields: Iterable[str], *, indent: int = 4, first: str = "") -> str:
    """The fields, two spaces apart, after the text `first`. No field is broken across lines. All lines but the first
    are indented by `indent`."""
    lines = [first]
    for field in fields:
        gap = "  " if lines[-1].strip() and not lines[-1].endswith(" ") else ""
        if lines[-1].strip() and len(lines[-1]) + len(gap) + len(field) > WIDTH:
            lines.append(" " * indent)
            gap = ""
        lines[-1] += gap + field
    return "\n".join(lines)


def metric_fields(values: Mapping[str, Any], monitor: str = "") -> list[str]:
    """A field for each metric, the one named `monitor` first. Values that are not floats (a step, a phase) are left
    out."""
    metrics = {name: value for name, value in values.items() if isinstance(value, float)}
    return [f"{name} {metrics[name]:.4f}" for name in sorted(metrics, key=lambda name: name != monitor)]


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or m:ss below an hour."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def user_name(uid: int) -> str:
    """The name of a user, or the number of one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"user {uid}"

"""Errors of a user's code: which sample, and which line of their code."""

from __future__ import annotations

import sysconfig
import traceback
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

NOT_THEIRS = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))

LONGEST = 300
"""Characters of an error's message that are shown."""


class SampleError(ValueError):
    """A sample cannot be read or transformed. The message names it, and the line of the user's code."""


class CollateError(ValueError):
    """Samples cannot be put into one batch. The message names them, and the line of the user's code."""


def place(error: BaseException) -> str:
    """The innermost line of the traceback that is neither Drumbeat's nor an installed package's: "my_lab/sets.py:31, in
    __getitem__". '' if there is none."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if _module(frame) != "drumbeat" and not file.startswith((*NOT_THEIRS, "<")):
            path, here = Path(file), Path.cwd()
            shown = path.relative_to(here) if path.is_relative_to(here) else path
            found = f"{shown}:{line}, in {frame.f_code.co_name}"
    return found


def _module(frame: FrameType) -> str:
    """The top-level package of the code that runs in a frame."""
    return str(frame.f_globals.get("__name__")).partition(".")[0]


def reason(error: BaseException) -> str:
    """The error's type and message in one line, and its `place`. A `ValueError` of Drumbeat's own is its message alone,
    which says everything."""
    where = place(error)
    text = " ".join(str(error).split())[:LONGEST]
    if text and not where and isinstance(error, ValueError) and _is_ours(error):
        return text
    return f"{type(error).__name__}{f': {text}' if text else ''}{f' ({where})' if where else ''}"


def _is_ours(error: BaseException) -> bool:
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return _module(frame) == "drumbeat"


def name_of(samples: Any, index: int) -> str:
    """The name of a sample, for example its file; '' if the set does not know it."""
    try:
        names = samples.names()
        return str(names[index] if hasattr(names, "__getitem__") else next(islice(names, index, None)))
    except Exception:  # for a message about another error
        return ""

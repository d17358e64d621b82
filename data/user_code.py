"""Errors of a user's code: which sample, and which line of their code."""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

from drumbeat.data.sample_names import told

NOT_THEIRS = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))

LONGEST = 300
"""Characters of an error's message that are shown."""


class SampleError(ValueError):
    """A sample cannot be read or transformed. The message names it, and the line of the user's code."""


class UnreadableError(SampleError):
    """A sample's file cannot be read: the reason is the data, or the disk, and not the user's code."""


class DamagedSampleError(UnreadableError):
    """The same, and the operating system has read the file, so that it cannot be read the next time either."""


CODE = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, NotImplementedError,
        TypeError)
"""Exceptions that are errors of code, wherever they are raised."""


def sample_error(error: Exception, *, was_read: bool) -> type[SampleError]:
    """The class of the error for a sample whose reading or, if it `was_read`, whose transforms have raised `error`.
    It is unreadable after an error of a file (images may be decoded by a transform), and after other errors of a
    library that reads it. The class is all that is left of an error of a loader process."""
    library = not was_read and not isinstance(error, CODE) and not _is_theirs(_innermost(error))
    if not (isinstance(error, OSError | EOFError) or library):
        return SampleError
    failed = any(isinstance(one, OSError) and one.errno is not None for one in _causes(error))
    return UnreadableError if failed else DamagedSampleError


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those from which it was raised."""
    while error is not None:
        yield error
        error = error.__cause__


class CollateError(ValueError):
    """Samples cannot be put into one batch. The message names them, and the line of the user's code."""


def place(error: BaseException) -> str:
    """The innermost line of the traceback that is neither Drumbeat's nor an installed package's: "my_lab/sets.py:31, in
    __getitem__". '' if there is none."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if _is_theirs(frame):
            path, here = Path(frame.f_code.co_filename), Path.cwd()
            shown = path.relative_to(here) if path.is_relative_to(here) else path
            found = f"{shown}:{line}, in {frame.f_code.co_name}"
    return found


def _is_theirs(frame: FrameType) -> bool:
    """Whether the code that runs in a frame is neither Drumbeat's nor an installed package's."""
    return _module(frame) != "drumbeat" and not frame.f_code.co_filename.startswith((*NOT_THEIRS, "<"))


def _innermost(error: BaseException) -> FrameType:
    """The frame in which the error was raised."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame


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
    return _module(_innermost(error)) == "drumbeat"


def name_of(samples: Any, index: int) -> str:
    """The name of a sample, for example its file; '' if the set does not know it."""
    try:
        names = told(samples, "names")
        return str(names[index] if hasattr(names, "__getitem__") else next(islice(names, index, None)))
    except Exception:  # for a message about another error
        return ""

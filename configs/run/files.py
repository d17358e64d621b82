"""Reads and writes the files of a run: atomic writes, and reads only of regular files of a reasonable size."""

from __future__ import annotations

import json
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.disk import persist

MAX_BYTES = 64 * 2**20
"""No JSON file of a run is larger: the largest is a checkpoint's state.json, with an entry for each parameter."""

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list",
         tuple: "a list", dict: "an object"}
"""The names of types in errors."""


class DamagedError(RunError):
    """A file of a run is damaged. This affects only that run."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(Fault(what=f"a file of the run cannot be read: {reason}", where=str(path),
                               remedy="Restore it, or start a new run."))
        self.path = path
        self.reason = reason


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes a file atomically: readers see the old or the new content. With `durable` this also holds after a power
    failure, at the cost of a disk flush. Raises `OSError`; in a process that waits for its disk (`disk.wait_for_disk`),
    only after that time."""
    persist(partial(_replace, path, text, durable=durable))


def write_soon(path: Path, text: str, size: int) -> bool:
    """Writes a file of `size` bytes without waiting for the disk; returns whether it was written. It is padded with
    spaces, so that even on a full disk the next text can be written over the old one, in place."""
    try:
        _replace(path, text.ljust(size), durable=False)
    except OSError:
        try:
            with open(path, "r+b", buffering=0) as file:
                old_size = os.fstat(file.fileno()).st_size
                content = text.encode().ljust(old_size)
                return len(content) == old_size and file.write(content) == old_size
        except OSError:
            return False
    return True


def _replace(path: Path, text: str, *, durable: bool) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}.tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Writes a JSON file atomically, like `write_text`."""
    write_text(path, json.dumps(value, indent=2) + "\n", durable=durable)


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file does not exist (yet). Raises `DamagedError` if it is not a regular
    file with a JSON object. It does not block on a pipe, nor read files that are too large."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            content = _content(handle, path)
        finally:
            os.close(handle)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error)) from None
    try:
        value = json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"it is not JSON ({error})") from None
    if not isinstance(value, dict):
        raise DamagedError(path, f"it contains {TYPES.get(type(value), 'null')}, not an object")
    return value


def _content(handle: int, path: Path) -> bytes:
    """The content of an open file. Raises `DamagedError` if it is not a regular file or is too large."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise DamagedError(path, "it is not a regular file")
    if found.st_size > MAX_BYTES:
        raise DamagedError(path, f"it is too large ({found.st_size:,} bytes)")
    with open(handle, "rb", closefd=False) as file:
        return file.read()

"""Reading and writing the files of a run: a whole file or nothing, and only regular files of a sensible size."""

from __future__ import annotations

import json
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.disk import persist

MOST_BYTES = 64 * 2**20
"""No JSON file of a run is larger: the largest is a checkpoint's state.json, with an entry for each parameter."""

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", list: "a list",
         tuple: "a list", dict: "an object"}
"""Types as an error names them."""


class DamagedError(RunError):
    """A file of a run cannot be read as what it should be. It concerns that run alone."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(Fault(what=f"a file of the run cannot be read: {reason}", where=str(path),
                               remedy="Restore it, or start a new run."))
        self.path = path
        self.reason = reason


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Writes a whole file or nothing: readers see the old content or the new. After a power cut too where it is
    `durable`, which costs a flush of the disk. Raises `OSError`, in a process that waits for its disk
    (`disk.wait_for_disk`) only when its patience is over."""
    persist(partial(_replace, path, text, durable=durable))


def write_soon(path: Path, text: str, size: int) -> bool:
    """Writes a whole file of `size` bytes, if the disk takes it now; returns whether it did. Spaces fill it up, so that
    a disk without a free block can take the next text: it is then written over the old one, in place."""
    try:
        _replace(path, text.ljust(size), durable=False)
    except OSError:
        try:
            with open(path, "r+b", buffering=0) as file:
                there = os.fstat(file.fileno()).st_size
                content = text.encode().ljust(there)
                return len(content) == there and file.write(content) == there
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
    """Writes a whole JSON file or nothing, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n", durable=durable)


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where the file is not there (yet). Raises `DamagedError` for anything but a
    regular file that holds one, without waiting for a pipe or reading without end."""
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
        raise DamagedError(path, f"it holds {WORDS.get(type(value), 'null')}, not an object")
    return value


def _content(handle: int, path: Path) -> bytes:
    """All of an open file. Raises `DamagedError` where it is not one to read."""
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        raise DamagedError(path, "it is not a regular file")
    if found.st_size > MOST_BYTES:
        raise DamagedError(path, f"it has {found.st_size:,} bytes, which is too many")
    with open(handle, "rb", closefd=False) as file:
        return file.read()

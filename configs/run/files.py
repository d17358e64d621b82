"""Reads and writes the files of a run: atomic writes, and reads only of regular files of a reasonable size that no link
leads out of the run's folder."""

from __future__ import annotations

import errno
import json
import os
import re
from contextlib import suppress
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.reading import open_regular
from drumbeat.configs.run.disk import persist

MAX_BYTES = 64 * 2**20
"""No JSON file of a run is larger: the largest is a checkpoint's state.json, with an entry for each parameter."""

TOP = ("config.yaml", "plan.json", "job.json", "status.json", "result.json")
DEEP = re.compile("attempts|checkpoints|evaluation|tensorboard")
SHALLOW = re.compile("nondeterministic|notifications|tensorboard|trackers|submitit|code(-[0-9]+)?")
"""The files in a run's folder, the folders in it that hold folders, and those that hold files."""

NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK)
"""Errors of link(2) on a file system without hard links."""

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


def write_text(path: Path, text: str, *, durable: bool = True, private: bool = False) -> None:
    """Writes a file atomically: readers see the old or the new content. With `durable` this also holds after a power
    failure, at the cost of a disk flush. Raises `OSError`; in a process that waits for its disk (`disk.wait_for_disk`),
    only after that time."""
    persist(partial(_replace, path, text, durable=durable, private=private or _is_private(path)))


def write_first(path: Path, text: str) -> bool:
    """Writes a file like `write_text`, unless it exists already: of several writers, one does. Returns whether this one
    did. Raises `OSError`."""
    try:
        persist(partial(_replace, path, text, durable=True, first=True))
    except FileExistsError:
        return False
    return True


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


def _is_private(path: Path) -> bool:
    """Whether a file exists that only its owner may read."""
    try:
        return not path.stat().st_mode & 0o077
    except OSError:
        return False


def _replace(path: Path, text: str, *, durable: bool, private: bool = False, first: bool = False) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o666)
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        (_link if first else os.replace)(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        with suppress(OSError):  # a read-only disk accepts no removal either
            temporary.unlink()


def _link(source: Path, target: Path) -> None:
    """Gives a file its name. Raises `FileExistsError` if another has it."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.replace(target)


def write_json(path: Path, value: Any, *, durable: bool = True) -> None:
    """Writes a JSON file atomically, like `write_text`."""
    write_text(path, json.dumps(value, indent=2) + "\n", durable=durable)


def json_text(value: Any) -> str:
    """Strict JSON, indented: NaN and Inf become null."""
    return json.dumps(without_nan(value), indent=2)


def without_nan(value: Any) -> Any:
    """A JSON value with null in place of NaN and Inf."""
    return json.loads(json.dumps(value), parse_constant=lambda name: None)


def run_folder(path: Path) -> Path:
    """The run's folder that a file is in, which no link may lead out of: see the layout in `folder.py`."""
    names = [above.name for above in path.parents]
    if path.name in TOP:
        return path.parent
    for depth, pattern in ((1, DEEP), (0, SHALLOW)):
        if len(names) > depth and pattern.fullmatch(names[depth]):
            return path.parents[depth + 1]
    return path.parent


def open_file(path: Path, most: int | None) -> BufferedReader:
    """Opens a file of a run, which may be another user's, for reading. Raises `FileNotFoundError` if it does not exist,
    and `DamagedError` if it is not a regular file of at most `most` bytes (None: any size), or is outside of the run's
    folder."""
    try:
        return open_regular(path, most=most, inside=run_folder(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileNotFoundError(error.errno, error.strerror, str(path)) from None
    except OSError as error:
        raise DamagedError(path, error.strerror or str(error)) from None


def read_text(path: Path, most: int) -> str:
    """The text of a file of a run. Raises like `open_file`. Bytes that are not UTF-8 are replaced."""
    with open_file(path, most) as file:
        return file.read().decode("utf-8", "replace")


def read_end(path: Path, size: int) -> str:
    """The last `size` bytes of a file of a run that may be large, such as a log. Raises like `open_file`."""
    with open_file(path, None) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - size))
        return file.read(size).decode("utf-8", "replace")


def read_object(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if the file does not exist (yet). Raises `DamagedError` if `open_file` refuses
    it, or if it is not a JSON object."""
    try:
        with open_file(path, MAX_BYTES) as file:
            content = file.read()
    except FileNotFoundError:
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

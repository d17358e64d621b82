"""A store: a folder of arrays that is built from a file once, and mapped into memory by all processes.

So a dataset of any size takes no memory in loader workers, and opens at once. If several processes start together, one
of them builds the store. It is renamed into place when it is complete, so a killed build leaves no incomplete store.
Its name depends on everything it was built from, so a changed file is built again.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import secrets
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.shared_folder import check_owner, open_lock

FORMAT = 3
"""Increased when the format of stores, or the way texts are split, changes: older stores are then built again."""


def built(source: Path, kind: str, recipe: object, build: Callable[[Path], None], cache: str | None) -> Path:
    """The folder that `build` fills from the file `source`. The `repr` of `recipe` distinguishes it from others.

    It is in the folder `cache`, by default `.drumbeat` beside the file, or `drumbeat` in the user's cache folder if
    that cannot be written. Raises ValueError if the file changes meanwhile, and what `build` raises.
    """
    state = _state(source)
    name = f"{source.stem}-{digest(FORMAT, state, recipe)}.{kind}"
    folders = [source.parent / ".drumbeat", *_user_folder()] if cache is None else [Path(cache).absolute()]
    for folder in folders:
        if (folder / name).is_dir() and _is_trusted(folder / name, source.stat().st_uid):
            return folder / name

    def whole(partial: Path) -> None:
        build(partial)
        if _state(source) != state:
            raise ValueError(f"{source} changed while it was read; start again when it is complete")

    with _lock_file(folders, name, source.stat().st_uid) as lock:
        folder = Path(lock.name).parent
        alone = _lock(lock, folder / name)
        if not (folder / name).is_dir():
            _publish(folder, name, whole, alone=alone)
    return folder / name


def _user_folder() -> list[Path]:
    """The folder for stores in the user's cache folder; none if the user has no home folder."""
    try:
        return [Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drumbeat"]
    except RuntimeError:
        return []


def mapped(file: Path, dtype: type, count: int) -> NDArray[Any]:
    """The `count` values of a file in a store, mapped into memory. Raises ValueError if the file has another size."""
    size = file.stat().st_size
    if size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"{file} is damaged ({size} bytes); remove {file.parent} to build it again")
    return np.asarray(np.memmap(file, dtype, "r"))


def digest(*parts: object) -> str:
    """A digest of the parts' `repr`: 16 hexadecimal digits."""
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _state(path: Path) -> tuple[str, int, int]:
    """Path, size and modification time: equal as long as the file has not changed."""
    status = path.stat()
    return str(path), status.st_size, status.st_mtime_ns


def _is_trusted(folder: Path, owner: int) -> bool:
    """Whether a store was made by this user, by root, or by the owner of the file it was made from."""
    try:
        check_owner(folder, owner)
    except PermissionError:
        return False
    return True


def _lock_file(folders: list[Path], name: str, owner: int) -> IO[bytes]:
    """The lock file, opened in the first folder that can be written and belongs to this user, root or the source file's
    `owner`."""
    folder, *others = folders
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_owner(folder, owner)
        with suppress(FileExistsError), open(folder / ".gitignore", "x") as ignore:
            ignore.write("*\n")
        return open_lock(folder / f".{name}.lock")
    except OSError as error:
        if not others or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return _lock_file(others, name, owner)


def _lock(file: IO[bytes], awaited: Path) -> bool:
    """Waits for the lock. Returns False on a file system without locks: there, each process builds, and the first one
    to finish wins."""
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that builds {awaited}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    return True


def _publish(folder: Path, name: str, build: Callable[[Path], None], *, alone: bool) -> None:
    if alone:  # removes the remains of killed builds
        for stale in folder.glob(f".{glob.escape(name)}.*.partial"):
            shutil.rmtree(stale, ignore_errors=True)
    partial = folder / f".{name}.{secrets.token_hex(4)}.partial"
    partial.mkdir()
    try:
        build(partial)
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        try:
            partial.rename(folder / name)
        except OSError:
            if not (folder / name).is_dir():
                raise
        _sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

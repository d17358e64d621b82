"""What is made from a file once and then read by all: a folder of arrays, which each process maps into memory.

A set of any size so takes no memory of its own, in no loader worker, and opens at once. However many processes start
together, one builds. A folder appears whole, by one rename, so a build that was killed leaves nothing to be taken for a
set; and it is named after all it was made from, so a changed file is built anew.
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
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from drumbeat.data.shared_folder import check_owner, open_lock

FORMAT = 2
"""Raised when the stores are laid out, or texts split, in another way: those of older versions are then built anew."""


def built(source: Path, kind: str, recipe: object, build: Callable[[Path], None], cache: str | None) -> Path:
    """The folder that `build` fills from the file `source` by `recipe`, whose `repr` tells it from others.

    It lies in the folder `cache`; by default in `.drumbeat` beside the file, or where that cannot be written, in
    `drumbeat` in the user's cache folder. Raises ValueError if the file is changed meanwhile, and what `build` raises.
    """
    state = _state(source)
    name = f"{source.stem}-{digest(FORMAT, state, recipe)}.{kind}"
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folders = [source.parent / ".drumbeat", users / "drumbeat"] if cache is None else [Path(cache).absolute()]
    for folder in folders:
        if (folder / name).is_dir() and _is_trusted(folder / name, source.stat().st_uid):
            return folder / name

    def whole(partial: Path) -> None:
        build(partial)
        if _state(source) != state:
            raise ValueError(f"{source} changed while it was read; start again once it is written")

    with _lock_file(folders, name, source.stat().st_uid) as lock:
        folder = Path(lock.name).parent
        alone = _lock(lock, folder / name)
        if not (folder / name).is_dir():
            _publish(folder, name, whole, alone=alone)
    return folder / name


def mapped(file: Path, dtype: type, count: int) -> NDArray[Any]:
    """The `count` values of a file in a store, mapped into memory. Raises ValueError if it holds another number."""
    size = file.stat().st_size
    if size != count * np.dtype(dtype).itemsize:
        raise ValueError(f"{file} is damaged ({size} bytes); remove {file.parent}, and it is built anew")
    return np.asarray(np.memmap(file, dtype, "r"))


def digest(*parts: object) -> str:
    """16 hexadecimal digits for what these look like."""
    return blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def _state(path: Path) -> tuple[str, int, int]:
    """What tells that a file is still the same."""
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
    """Opened in the first of the folders that can be written to, and that is nobody's but this user's, root's or the
    source file's `owner`'s."""
    folder, *others = folders
    try:
        folder.mkdir(parents=True, exist_ok=True)
        check_owner(folder, owner)
        if not (folder / ".gitignore").exists():
            (folder / ".gitignore").write_text("*\n")
        return open_lock(folder / f".{name}.lock")
    except OSError as error:
        if not others or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return _lock_file(others, name, owner)


def _lock(file: IO[bytes], awaited: Path) -> bool:
    """Wait for our turn; False on a file system without locks, where each process builds and the first to end wins."""
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which builds {awaited}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    return True


def _publish(folder: Path, name: str, build: Callable[[Path], None], *, alone: bool) -> None:
    if alone:  # what builds that were killed have left
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

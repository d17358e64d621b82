"""The lock of a run: one command at a time starts, resumes, stops, cancels or cleans it.

It is a lock of flock(2) on RUN/lock.json, which the kernel frees however its holder ends. The file names the holder.
Linux forwards such locks to NFS servers, so they also hold between machines, unless the file system is mounted without
them: see `lock_problem`. Launchers and ranks take no lock: they may not depend on a file server's lock daemon, and an
attempt has one writer already (`folder.RunDir.claim_attempt`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError, hang
from drumbeat.configs.run.disk import TEMPORARY
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Change
from drumbeat.configs.text_fields import user_name

POLL_SECONDS = 0.1
MOMENT = 1.0
"""Seconds to wait for a lock in any case: `is_changing` takes it for an instant."""
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
"""Errors of flock on a file system without locks."""
LOCAL_LOCKS = {"nfs": r"\b(nolock|local_lock=(all|flock))\b", "lustre": r"\blocalflock\b", "fuse.sshfs": "",
               "beegfs": ""}
"""File systems whose locks hold on one machine only, with the mount options that make them so: nfs(5), mount.lustre(8);
beegfs unless `tuneUseGlobalFileLocks` is set, which the mount options do not show."""


@contextmanager
def changing(run: RunDir, command: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock of a run, whose folder must exist, on behalf of a `command`: "resume". While another command holds
    it, waits with a message, or raises `RunError` without `wait`. Raises `RunError` if the run belongs to another user
    who does not allow it. Does nothing on a file system without locks, or if the disk is full."""
    handle = open_lock(run.path, run.lock)
    try:
        if handle is not None and _acquire(handle, run, wait=wait):
            text = json.dumps(Change(command=command).as_json())
            with suppress(OSError):  # a full disk: the lock holds, but does not say who holds it
                os.pwrite(handle, f"{text}\n".encode(), 0)
                os.ftruncate(handle, len(text) + 1)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def is_changing(run: RunDir) -> bool:
    """Whether a command is changing the run just now. False if that cannot be seen: for a run of another user."""
    try:
        handle = os.open(run.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in UNSUPPORTED
    finally:
        os.close(handle)
    return False


def lock_problem(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """A note if the locks in a folder do not hold between machines; otherwise ''."""
    device = folder.stat().st_dev
    for line in mounts.read_text(errors="replace").splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            kind, *options = rest.split()
            pattern = LOCAL_LOCKS.get("nfs" if kind == "nfs4" else kind)
            if pattern is not None and re.search(pattern, " ".join([*options, fields])):
                return (f"{folder} is on {kind}, mounted with locks that hold on one machine only: do not resume or "
                        "cancel a run on two machines at once")
    return ""


def open_lock(path: Path, lock: Path, what: str = "run") -> int | None:
    """The open file of the lock of a run, or of something else (`what`), in the folder `path`. Those may open it who
    may write to the folder: any reader could hold it for ever. The owner makes it. None if it cannot exist: on a disk
    that is full or read-only, and for another user in a run of an older version. Raises `RunError`."""
    folder = path.stat()
    is_owner = os.geteuid() in (0, folder.st_uid)
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(lock, flags | (os.O_CREAT if is_owner else 0), 0o600)
    except PermissionError:
        raise RunError(Fault(what=f"you may not change this {what}", where=str(path),
                             given=f"it belongs to {user_name(folder.st_uid)}", remedy="Ask its owner.")) from None
    except OSError as error:
        if error.errno in TEMPORARY:
            return None
        raise RunError(Fault(what=f"the {what} cannot be locked: {error.strerror}", where=str(lock),
                             remedy="Remove this file.")) from None
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(handle)
        raise RunError(Fault(what=f"the {what} cannot be locked: its lock is no regular file, or has another name, "
                                  "too", where=str(lock), remedy="Remove this file."))
    with suppress(OSError):  # a file system without owners or modes
        if os.geteuid() == 0 and folder.st_uid != 0:  # root must not lock the owner out
            os.fchown(handle, folder.st_uid, -1)
        if is_owner:
            os.fchmod(handle, 0o660 if folder.st_mode & stat.S_IWGRP else 0o600)
    return handle


def _acquire(handle: int, run: RunDir, *, wait: bool) -> bool:
    """Locks the open file. Returns whether the file system supports locks."""
    until = time.monotonic() + MOMENT
    told = False
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in UNSUPPORTED:
                return False
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                raise
        if time.monotonic() > until:
            if not wait:
                raise RunError(Fault(what=f"run {run.id} is being changed by another command", where=str(run.path),
                                     given=_holder(run), remedy="Try again when it has ended."))
            if not told:
                told = True
                print(hang("waiting    ", f"for another command on this run: {_holder(run)}"), file=sys.stderr,
                      flush=True)
        time.sleep(POLL_SECONDS)


def _holder(run: RunDir) -> str:
    """The command that holds the lock, as text."""
    with suppress(DamagedError):  # it is being written
        if change := Change.read(run.lock):
            return f"drumbeat {change.command}, process {change.pid} on {change.host}"
    return "unknown"

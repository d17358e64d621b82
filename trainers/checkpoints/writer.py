"""The process that writes checkpoints from the staged copy of the state.

    python -m drumbeat.trainers.checkpoints.writer FD < one JSON object a line, each answered by one

It never imports torch, so it starts quickly, and it works with the lowest priority until its rank waits for it (the
signal SIGURG, which processes ignore by default) or `PATIENCE` has passed: on a machine whose cores all compute, the
write would otherwise take minutes, and a failure would cost the steps since the checkpoint before. The bytes of the
files are in shared memory with the file descriptor FD.

    write to a temporary folder -> flush -> manifest -> rename -> flush -> promote `last`, `best` -> prune

Readers see a complete checkpoint or none, and a link points only to a checkpoint that is safely on disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import mmap
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.checkpoint_records import CheckpointState, FileDigest, Manifest
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import FORMAT, checkpoint_path, progress_at, saved_steps
from drumbeat.configs.run.processes import call_process, die_with_parent
from drumbeat.configs.run.record import Record

PIECE = 1 << 20
"""Bytes hashed and written at a time."""

PATIENCE = 10.0
"""Seconds with the lowest priority."""

Work = Generator[None, None, Any]
"""Work that can change threads after each piece."""

HURRY = threading.Event()
"""Whether the rank waits for the order."""


@dataclass(frozen=True, kw_only=True)
class Reordered(Record):
    """A tensor whose items are in the shared memory in another order than in its file."""

    start: int
    """The offset of its bytes in the shared memory."""
    item_size: int
    """In bytes."""
    shape: tuple[int, ...]
    """As it is in the memory."""
    axes: tuple[int, ...]
    """Which dimension of the memory is the first, the second, ... in the file."""

    @property
    def end(self) -> int:
        return self.start + self.item_size * math.prod(self.shape)

    def pieces(self, memory: memoryview) -> Iterator[memoryview]:
        """Its bytes in the order of the file."""
        import numpy as np  # takes a tenth of a second, which most writers do not need

        items = np.frombuffer(memory[self.start:self.end], f"u{self.item_size}")
        items = items.reshape(self.shape).transpose(self.axes)
        rows = max(1, PIECE * len(items) // (self.end - self.start))
        for first in range(0, len(items), rows):
            yield np.ascontiguousarray(items[first:first + rows]).data.cast("B")


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """One checkpoint to write."""

    attempt: str
    """Folder of the attempt that saves. It may save only while it is the newest attempt of the run."""
    step: int
    is_best: bool
    keep: int
    """The number of newest checkpoints to keep."""
    state: CheckpointState
    """The content of state.json."""
    files: dict[str, tuple[int, int]]
    """For each file of tensors, the offset of its bytes in the shared memory and their number."""
    reordered: tuple[Reordered, ...] = ()
    """The tensors in another order than in their files, by offset."""


class TakenOverError(Exception):
    """A newer attempt has taken over the run, so this one must not write."""


def write(order: Order, memory: memoryview) -> Work:
    """Writes a checkpoint, points `last` to it, and prunes old ones. Returns its folder. Raises `TakenOverError` and
    `OSError`."""
    attempt = Attempt(Path(order.attempt))
    run = RunDir(attempt.path.parent.parent)
    final = checkpoint_path(run, order.step)
    if not (final / "manifest.json").exists():
        run.checkpoints.mkdir(exist_ok=True)  # no parents: nothing must be created if the disk was unmounted
        temporary = run.checkpoints / f".{final.name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        _make_room(run, sum(size for _, size in order.files.values()))
        try:
            temporary.mkdir()
            yield from _write_files(order, memory, temporary, attempt.number)
            _check_newest(run, attempt)
            if final.exists():  # without a manifest: incomplete
                shutil.rmtree(final)
            temporary.rename(final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        flush(run.checkpoints)
    _check_newest(run, attempt)
    point(run.checkpoints, "last", final)
    if order.is_best:
        point(run.checkpoints, "best", final)
    prune(run, order.keep)
    return final


def _make_room(run: RunDir, needed: int) -> None:
    """Removes all checkpoints but the newest and the best if the disk has no room for another one. Raises `OSError`."""
    folder = run.checkpoints
    if shutil.disk_usage(folder).free < needed:
        prune(run, 1)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free", str(folder))


def _write_files(order: Order, memory: memoryview, folder: Path, attempt: int) -> Work:
    files: dict[str, FileDigest] = {}
    state = memoryview(json.dumps(order.state.as_json(), indent=1).encode())
    contents = {name: _pieces(memory, start, start + size, order.reordered)
                for name, (start, size) in order.files.items()} | {"state.json": _pieces(state, 0, len(state), ())}
    for name, pieces in contents.items():
        digest, size = hashlib.sha256(), 0
        with open(folder / name, "wb", buffering=0) as file:
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                while len(piece):
                    piece = piece[file.write(piece):]
                yield
            os.fsync(file.fileno())
        files[name] = FileDigest(bytes=size, sha256=digest.hexdigest())
    Manifest(format=FORMAT, step=order.step, attempt=attempt, files=files).write(folder / "manifest.json")
    flush(folder)


def _pieces(memory: memoryview, start: int, end: int, reordered: Iterable[Reordered]) -> Iterator[memoryview]:
    """The bytes of a file, of which the shared memory has these."""
    inside = [one for one in reordered if start <= one.start < end]
    for one in [*inside, None]:
        until = one.start if one else end
        for begin in range(start, until, PIECE):
            yield memory[begin:min(begin + PIECE, until)]
        if one:
            yield from one.pieces(memory)
            start = one.end


def _check_newest(run: RunDir, attempt: Attempt) -> None:
    if run.is_superseded(attempt.number):
        raise TakenOverError(f"attempt {run.newest_number()} has taken over this run")


def point(folder: Path, name: str, target: Path) -> None:
    """Points a link to another target, atomically."""
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, folder / name)
    flush(folder)


def prune(run: RunDir, keep: int) -> None:
    """Removes all checkpoints but the `keep` newest and what they list (`Progress.kept_steps`), and the remains of
    killed writers."""
    steps = saved_steps(run)
    kept = set(steps[:keep])
    for step in steps[:keep]:
        kept |= progress.kept_steps if (progress := progress_at(checkpoint_path(run, step))) else set()
    for path in (checkpoint_path(run, step) for step in steps if step not in kept):
        (path / "manifest.json").unlink(missing_ok=True)  # first: a partly removed checkpoint is incomplete
        shutil.rmtree(path, ignore_errors=True)
    for path in run.checkpoints.glob(".*.tmp"):
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def flush(path: Path) -> None:
    """Waits until the bytes of a file, or the entries of a folder, are on disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def answer(line: str, fd: int) -> Work:
    """Carries out an order. Returns the folder, or the error, as a dict for JSON."""
    order = Order.parse(json.loads(line))
    with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as shared, memoryview(shared) as memory:
        try:  # inside, because the frames of an error refer to the memory, which could then not be closed
            return {"path": str((yield from write(order, memory)))}
        except OSError as error:
            return {"error": error.strerror or str(error), "errno": error.errno, "file": str(error.filename or "")}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "errno": None, "file": ""}


def carry_out(work: Work) -> Any:
    """Does the work in a thread with the lowest priority, until `HURRY` is set or for `PATIENCE`, and the rest of it in
    this thread: a thread may not raise its own priority. Returns the result."""
    results: list[Any] = []
    until = time.monotonic() + PATIENCE

    def advance(slowly: bool) -> None:
        if slowly:  # SCHED_IDLE would get a fifth of this share, too little if training never waits
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        try:
            while not (slowly and (HURRY.is_set() or time.monotonic() > until)):
                next(work)
        except StopIteration as end:
            results.append(end.value)

    slow = threading.Thread(target=advance, args=(True,))
    slow.start()
    slow.join()
    if not results:
        advance(slowly=False)
    return results[0]


def main(fd: int) -> None:
    """Carries out orders until the input ends or the rank ends."""
    die_with_parent(os.getppid())
    call_process("writer")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the rank, which then saves
    signal.signal(signal.SIGURG, lambda number, frame: HURRY.set())
    for line in sys.stdin:
        HURRY.clear()
        print(json.dumps(carry_out(answer(line, fd))), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

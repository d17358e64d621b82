"""The process that writes checkpoints: everything between a staged copy of the state and a checkpoint to rely on.

    python -m drumbeat.trainers.checkpoints.writer FD < one JSON object a line, each answered by one

It never imports torch, so it is there in a moment, and it works at the lowest priority beside the training. The bytes
of the files lie in shared memory, whose descriptor is FD, as they are to stand on the disk.

    write to a temporary folder -> flush -> manifest -> rename -> flush -> promote `last`, `best` -> prune

Readers see all of a checkpoint or nothing of it, and a link points to nothing that is not safely on the disk.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drumbeat.configs.run.checkpoint_records import CheckpointState, FileDigest, Manifest
from drumbeat.configs.run.folder import Attempt, RunDir
from drumbeat.configs.run.manifest import FORMAT, checkpoint_path, progress_at, saved_steps
from drumbeat.configs.run.processes import call_process, die_with_parent
from drumbeat.configs.run.record import Record

PIECE = 8 << 20
"""Bytes hashed and written at a time."""


@dataclass(frozen=True, kw_only=True)
class Order(Record):
    """One checkpoint to write."""

    attempt: str
    """Folder of the attempt that saves; it may do so only while it is the run's newest."""
    step: int
    is_best: bool
    keep: int
    """How many of the newest to keep."""
    state: CheckpointState
    """What state.json is to hold."""
    files: dict[str, tuple[int, int]]
    """For each file of tensors, where its bytes begin in the shared memory, and how many there are."""


class TakenOverError(Exception):
    """A newer attempt has taken over the run: this one was cut off, and must not write."""


def write(order: Order, memory: memoryview) -> Path:
    """Writes a checkpoint, makes it the newest, and removes what is not kept. Raises `TakenOverError` and `OSError`."""
    attempt = Attempt(Path(order.attempt))
    run = RunDir(attempt.path.parent.parent)
    final = checkpoint_path(run, order.step)
    if not (final / "manifest.json").exists():
        run.checkpoints.mkdir(exist_ok=True)  # no parents: where a disk was unmounted, nothing must be made
        temporary = run.checkpoints / f".{final.name}.{os.getpid()}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        _make_room(run, sum(size for _, size in order.files.values()))
        try:
            temporary.mkdir()
            _write_files(order, memory, temporary, attempt.number)
            _check_newest(run, attempt)
            if final.exists():  # without a manifest: half-written by somebody
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
    """Removes all checkpoints but the newest and the best where the disk has no room for one more. Raises `OSError`."""
    folder = run.checkpoints
    if shutil.disk_usage(folder).free < needed:
        prune(run, 1)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise OSError(errno.ENOSPC, f"{needed / 1e6:,.0f} MB are needed and {free / 1e6:,.0f} MB are free", str(folder))


def _write_files(order: Order, memory: memoryview, folder: Path, attempt: int) -> None:
    files: dict[str, FileDigest] = {}
    parts = {name: memory[start:start + size] for name, (start, size) in order.files.items()}
    parts["state.json"] = memoryview(json.dumps(order.state.as_json(), indent=1).encode())
    for name, content in parts.items():
        digest = hashlib.sha256()
        with open(folder / name, "wb", buffering=0) as file:
            for start in range(0, len(content), PIECE):
                piece = content[start:start + PIECE]
                digest.update(piece)
                while len(piece):
                    piece = piece[file.write(piece):]
            os.fsync(file.fileno())
        files[name] = FileDigest(bytes=len(content), sha256=digest.hexdigest())
    Manifest(format=FORMAT, step=order.step, attempt=attempt, files=files).write(folder / "manifest.json")
    flush(folder)


def _check_newest(run: RunDir, attempt: Attempt) -> None:
    if run.is_superseded(attempt.number):
        raise TakenOverError(f"attempt {run.newest_number()} has taken over this run")


def point(folder: Path, name: str, target: Path) -> None:
    """Lets a link point elsewhere, in one step."""
    temporary = folder / f".{name}.{os.getpid()}.tmp"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target.name)
    os.replace(temporary, folder / name)
    flush(folder)


def prune(run: RunDir, keep: int) -> None:
    """Removes all but the newest few and the best one that each of these counts on, and what killed writers left."""
    steps = saved_steps(run)
    kept = set(steps[:keep])
    kept |= {progress.best["step"] for step in steps[:keep]
             if (progress := progress_at(checkpoint_path(run, step))) and progress.best}
    for path in (checkpoint_path(run, step) for step in steps if step not in kept):
        (path / "manifest.json").unlink(missing_ok=True)  # first: half-removed is not complete
        shutil.rmtree(path, ignore_errors=True)
    for path in run.checkpoints.glob(".*.tmp"):
        if not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def flush(path: Path) -> None:
    """Waits until a file's bytes, or a folder's names, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def answer(line: str, fd: int) -> dict[str, Any]:
    """What came of an order: the folder, or what went wrong."""
    order = Order.parse(json.loads(line))
    with mmap.mmap(fd, os.fstat(fd).st_size, prot=mmap.PROT_READ) as shared, memoryview(shared) as memory:
        try:  # inside: an error's frames hold views of the memory, which cannot be closed before they are gone
            return {"path": str(write(order, memory))}
        except OSError as error:
            return {"error": error.strerror or str(error), "errno": error.errno, "file": str(error.filename or "")}
        except Exception as error:
            return {"error": f"{type(error).__name__}: {error}", "errno": None, "file": ""}


def main(fd: int) -> None:
    """Answers orders until there are no more, or the rank that gives them has gone."""
    die_with_parent(os.getppid())
    call_process("writer")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the rank, which will want a checkpoint
    os.nice(19)  # SCHED_IDLE would starve where training never waits: it gets a fifth of this share
    for line in sys.stdin:
        print(json.dumps(answer(line, fd)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The faults that a drill injects into a run on this machine: kills, signals, a corrupted checkpoint, a full disk.

Each fault is real and comes from outside: nothing in the run knows about drills. Processes are found by their names
(/proc/PID/comm).
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_path, saved_steps
from drumbeat.configs.run.records import ENDED, Job, Status
from drumbeat.configs.run.view import View
from drumbeat.launch.attempts.processes import descendants
from drumbeat.launch.drill.full_disk import full_disk

Recovery = Literal["restart", "resume", "none"]
"""How a run recovers: by itself in a new attempt; when somebody resumes it; it keeps running in the same attempt."""

Inject = Callable[[RunDir, Random], str]
"""Injects a fault. Returns how it differs from a real one; '' if it does not. Raises `NotInjectedError`."""

T = TypeVar("T")

TIMEOUT = 120.0
"""Seconds to wait for the moment of a fault: a checkpoint that is being written, a run that pauses."""
PROCESS_TIMEOUT = 10.0
"""Seconds to wait for a process: a run that has just restarted may not have started all of them yet."""


NO_SAVE = "the run saved no checkpoint before it ended or the wait timed out"


class NotInjectedError(Exception):
    """The fault could not be injected; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class FaultType:
    """A type of fault."""

    description: str
    recovery: Recovery
    inject: Inject


def processes(run: RunDir) -> dict[str, list[int]]:
    """The process ids of the run on this machine by process name, those of the launcher included."""
    found: dict[str, list[int]] = {}
    job = Job.read(run.job)
    controller = job.id if job else None
    for pid in descendants(int(controller)) if controller else ():
        with suppress(OSError):
            arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            name = "rank" if name.startswith("rank") else name
            found.setdefault("launcher" if b"submitit.core._submit" in arguments else name, []).append(pid)
    return found


def kill(name: str, number: signal.Signals = signal.SIGKILL) -> Inject:
    """The fault of sending a signal to one of the processes of that name, chosen at random."""

    def inject(run: RunDir, random: Random) -> str:
        for targets in poll(run, lambda: sorted(processes(run).get(name, ())), timeout=PROCESS_TIMEOUT):
            with suppress(ProcessLookupError):
                os.kill(random.choice(targets), number)
                return ""
        raise NotInjectedError(f"no process '{name}' is running")

    return inject


def kill_writer_while_writing(run: RunDir, random: Random) -> str:
    """Sends SIGKILL to the checkpoint writer while it is in the middle of a checkpoint."""
    for writer in poll(run, lambda: processes(run).get("writer", [])):
        for _ in poll(run, lambda: list(run.checkpoints.glob(".step-*.tmp")), pause=0.0):
            with suppress(ProcessLookupError):
                os.kill(writer[0], signal.SIGSTOP)  # so that it does not finish during the check
                writing = bool(list(run.checkpoints.glob(".step-*.tmp")))
                os.kill(writer[0], signal.SIGKILL if writing else signal.SIGCONT)
                if writing:
                    return ""
    raise NotInjectedError("no checkpoint was written before the run ended or the wait timed out")


def corrupt_newest_checkpoint(run: RunDir, random: Random) -> str:
    """Flips a bit in the newest of at least two checkpoints, and kills a rank so that the run has to read it."""
    for steps in poll(run, lambda: _complete(run)):
        with suppress(OSError), open(checkpoint_path(run, steps[0]) / "model.safetensors", "r+b") as file:
            position = random.randrange(os.fstat(file.fileno()).st_size)
            file.seek(position)
            byte = file.read(1)[0]
            file.seek(position)
            file.write(bytes([byte ^ 1 << random.randrange(8)]))
            return kill("rank")(run, random)
    raise NotInjectedError("the run ended, or the wait timed out, before it had two checkpoints")


def _complete(run: RunDir) -> list[int]:
    """The steps of the complete checkpoints, the newest first; none if there are fewer than two."""
    steps = [step for step in saved_steps(run) if (checkpoint_path(run, step) / "manifest.json").exists()]
    return steps if len(steps) > 1 else []


def fill_disk(run: RunDir, random: Random) -> str:
    """Puts a full file system in the place of the checkpoints until the run pauses. Without the permission for that, it
    limits the writer's files."""
    for writer in poll(run, lambda: processes(run).get("writer", [])):
        with suppress(ProcessLookupError):
            try:
                run.checkpoints.mkdir(exist_ok=True)
                with full_disk(run.checkpoints):
                    _wait_until_paused(run)
                return ""
            except PermissionError as error:
                _limit_files(run, writer[0])
                return f"a limit on the writer's files took the place of a full disk, which needs root ({error})"
    raise NotInjectedError(NO_SAVE)


def _limit_files(run: RunDir, writer: int) -> None:
    """Makes every write of a checkpoint fail in the middle of the file until the run pauses, by the writer's
    RLIMIT_FSIZE: the kernel answers EFBIG where a full disk answers ENOSPC."""
    try:
        soft, hard = resource.prlimit(writer, resource.RLIMIT_FSIZE)
        resource.prlimit(writer, resource.RLIMIT_FSIZE, (1000, hard))
    except PermissionError as error:
        raise NotInjectedError(f"the writer's file size cannot be limited: {error.strerror}") from None
    try:
        _wait_until_paused(run)
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(writer, resource.RLIMIT_FSIZE, (soft, hard))


def _wait_until_paused(run: RunDir) -> None:
    for _ in poll(run, lambda: View.read(run).state == "paused"):
        return
    raise NotInjectedError(NO_SAVE)


def poll(run: RunDir, check: Callable[[], T], *, pause: float = 0.01, timeout: float = TIMEOUT) -> Iterator[T]:
    """The true values of `check`, which is called every `pause` seconds until the run ends or the time is over."""
    until = time.monotonic() + timeout
    while time.monotonic() < until and not ((status := Status.read(run.status)) and status.state in ENDED):
        if found := check():
            yield found
        time.sleep(pause)


FAULTS: dict[str, FaultType] = {
    "rank": FaultType(description="SIGKILL to a rank", recovery="restart", inject=kill("rank")),
    "loader": FaultType(description="SIGKILL to a loader worker", recovery="restart", inject=kill("pt_data_worker")),
    "torchrun": FaultType(description="SIGKILL to torchrun", recovery="restart", inject=kill("pt_elastic")),
    "forkserver": FaultType(description="SIGKILL to the fork server", recovery="restart", inject=kill("forkserver")),
    "writer": FaultType(description="SIGKILL to the writer, writing", recovery="none",
                        inject=kill_writer_while_writing),
    "launcher": FaultType(description="SIGKILL to the launcher", recovery="resume", inject=kill("launcher")),
    "sigterm": FaultType(description="SIGTERM to the launcher", recovery="resume",
                         inject=kill("launcher", signal.SIGTERM)),
    "checkpoint": FaultType(description="newest checkpoint corrupted", recovery="restart",
                            inject=corrupt_newest_checkpoint),
    "disk": FaultType(description="disk full while saving", recovery="none", inject=fill_disk),
}
"""All types of faults. A change of the number of ranks is not one: it changes the arithmetic (`drill/drill.py`)."""

"""What a drill does to a run on this machine: kills, signals, a spoilt checkpoint, a disk that fills up.

The victims are found by the names that processes bear (/proc/PID/comm). Each blow is the real thing, done from outside:
nothing in the run knows of drills.
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

After = Literal["restart", "resume", "same attempt"]
"""How a run comes back: by itself in a new attempt; when somebody resumes it; it never left."""

T = TypeVar("T")

PATIENCE = 120.0
"""Seconds to wait for a checkpoint to be written, so that the blow can fall into it."""


@dataclass(frozen=True, kw_only=True)
class Blow:
    """A kind of blow."""

    words: str
    after: After
    strike: Callable[[RunDir, Random], bool]
    """Does it; whether there was something to strike."""


def processes(run: RunDir) -> dict[str, list[int]]:
    """The run's processes on this machine by what they are called, the launcher among them."""
    found: dict[str, list[int]] = {}
    job = Job.read(run.job)
    controller = job.id if job else None
    for pid in descendants(int(controller)) if controller else ():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            name = "rank" if name.startswith("rank") else name
            found.setdefault("launcher" if b"submitit.core._submit" in words else name, []).append(pid)
    return found


def kill(name: str, number: signal.Signals = signal.SIGKILL) -> Callable[[RunDir, Random], bool]:
    """A blow that sends a signal to one of the processes of that name."""

    def strike(run: RunDir, random: Random) -> bool:
        victims = sorted(processes(run).get(name, ()))
        with suppress(ProcessLookupError):
            if victims:
                os.kill(random.choice(victims), number)
                return True
        return False

    return strike


def kill_writer_at_work(run: RunDir, random: Random) -> bool:
    """SIGKILL to the process that writes checkpoints while one of them is half written."""
    for writer in waiting_for(run, lambda: processes(run).get("writer", [])):
        for _ in waiting_for(run, lambda: list(run.checkpoints.glob(".step-*.tmp")), pause=0.0):
            with suppress(ProcessLookupError):
                os.kill(writer[0], signal.SIGSTOP)  # it is not to finish while we look
                caught = bool(list(run.checkpoints.glob(".step-*.tmp")))
                os.kill(writer[0], signal.SIGKILL if caught else signal.SIGCONT)
                if caught:
                    return True
    return False


def spoil_newest_checkpoint(run: RunDir, random: Random) -> bool:
    """Flips a bit in the newest checkpoint, and kills a rank, so that it is needed."""
    steps = [step for step in saved_steps(run) if (checkpoint_path(run, step) / "manifest.json").exists()]
    if len(steps) < 2:
        return False
    with suppress(OSError), open(checkpoint_path(run, steps[0]) / "model.safetensors", "r+b") as file:
        place = random.randrange(os.fstat(file.fileno()).st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << random.randrange(8)]))
        return kill("rank")(run, random)
    return False


def fill_disk(run: RunDir, random: Random) -> bool:
    """Lets every write of a checkpoint fail in the middle of the file, until the run has paused; then lets it go on.

    The kernel refuses to write beyond a limit that is set from outside (RLIMIT_FSIZE). It says EFBIG where a full disk
    says ENOSPC; the rest is the same, and nobody else's disk is filled.
    """
    for writer in waiting_for(run, lambda: processes(run).get("writer", [])):
        with suppress(ProcessLookupError):
            usual, most = resource.prlimit(writer[0], resource.RLIMIT_FSIZE)
            resource.prlimit(writer[0], resource.RLIMIT_FSIZE, (1000, most))
            try:
                for _ in waiting_for(run, lambda: View.read(run).state == "paused"):
                    return True
            finally:
                resource.prlimit(writer[0], resource.RLIMIT_FSIZE, (usual, most))
    return False


def waiting_for(run: RunDir, look: Callable[[], T], pause: float = 0.01) -> Iterator[T]:
    """Whatever `look` finds, again and again, for as long as the run goes on and there is patience."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not ((status := Status.read(run.status)) and status.state in ENDED):
        if found := look():
            yield found
        time.sleep(pause)


BLOWS: dict[str, Blow] = {
    "rank": Blow(words="SIGKILL to a rank", after="restart", strike=kill("rank")),
    "loader": Blow(words="SIGKILL to a loader worker", after="restart", strike=kill("pt_data_worker")),
    "agent": Blow(words="SIGKILL to torchrun", after="restart", strike=kill("pt_elastic")),
    "forkserver": Blow(words="SIGKILL to the fork server", after="restart", strike=kill("forkserver")),
    "writer": Blow(words="SIGKILL to the writer, writing", after="same attempt", strike=kill_writer_at_work),
    "launcher": Blow(words="SIGKILL to the launcher", after="resume", strike=kill("launcher")),
    "terminate": Blow(words="SIGTERM", after="resume", strike=kill("launcher", signal.SIGTERM)),
    "spoilt": Blow(words="newest checkpoint spoilt", after="restart", strike=spoil_newest_checkpoint),
    "disk": Blow(words="disk full while saving", after="same attempt", strike=fill_disk),
}
"""All kinds but one: to stop, and to go on with other ranks, changes the arithmetic (see launch/drill/drill.py)."""

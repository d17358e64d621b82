"""A run is a folder: every path in it is derived here, every file in it is written atomically.

    runs/<name>/<time>-<id>/
        config.yaml      resolved; what the workers read
        plan.json        topology, environment, commands; what the node launchers read
        code/            the code it runs, as it was when the run was submitted
        job.json         where it runs, and the job's id there
        status.json      the state of the run
        result.json      what a finished run came to
        nondeterministic/   a file for each operation without a deterministic implementation
        attempts/<k>/    one start of all ranks: its heartbeat, logs, errors, the stop marker
        checkpoints/     weights and state by step
        tensorboard/     one event folder for all attempts
        submitit/        submitit's own files
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from drumbeat.configs.run.records import RankError, State, Status, StopRequest

ATTEMPT = re.compile("[0-9]{3,}")
"""The name of an attempt's folder."""


@dataclass(frozen=True)
class RunDir:
    """The paths of one run. Building one touches nothing on disk."""

    path: Path

    @classmethod
    def new(cls, runs: Path, name: str, now: float | None = None) -> RunDir:
        """A fresh run of experiment `name` below `runs`; its id is the time and five random characters."""
        moment = time.strftime("%Y%m%d-%H%M%S", time.localtime(now))
        alphabet = "abcdefghjkmnpqrstuvwxyz23456789"  # nothing that reads like something else
        letters = "".join(alphabet[byte % len(alphabet)] for byte in os.urandom(5))
        return cls(runs.absolute() / name / f"{moment}-{letters}")

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def job(self) -> Path:
        """Written by who submits; apart from status.json, which the job itself may already be writing by then."""
        return self.path / "job.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def nondeterministic(self) -> Path:
        """A file for each operation without a deterministic implementation that a rank ran (`determinism.py`)."""
        return self.path / "nondeterministic"

    @property
    def submitit(self) -> Path:
        return self.path / "submitit"

    def attempt(self, number: int) -> Attempt:
        return Attempt(self.attempts / f"{number:03d}")

    def all_attempts(self) -> list[Attempt]:
        """The attempts so far, the oldest first. A folder of another name, such as a copy, is none of them."""
        names = (entry.name for entry in self.attempts.glob("[0-9]*"))
        return [self.attempt(number) for number in sorted(int(name) for name in names if ATTEMPT.fullmatch(name))]

    def newest_attempt(self) -> Attempt | None:
        """The attempt that may write; None before the first."""
        return next(reversed(self.all_attempts()), None)

    def newest_number(self) -> int:
        """The newest attempt's number; -1 before the first."""
        newest = self.newest_attempt()
        return newest.number if newest else -1

    def is_superseded(self, attempt: int) -> bool:
        """Whether a later attempt than the one of this number has taken over the run, and this one must not write."""
        return self.newest_number() > attempt

    def claim_attempt(self) -> Attempt:
        """Makes the next attempt's folder. `mkdir` lets exactly one caller have each number."""
        self.attempts.mkdir(parents=True, exist_ok=True)
        while True:
            attempt = self.attempt(self.newest_number() + 1)
            try:
                attempt.path.mkdir()
            except FileExistsError:
                continue  # another launcher was faster: look again
            return attempt

    def write_status(self, state: State, *, attempt: int, verdict: str = "") -> bool:
        """Says in status.json what the run's state is, as far as `attempt` (-1 before the first) can tell. Returns
        whether it was written: not where a later attempt has taken over."""
        if self.is_superseded(attempt):
            return False
        Status(state=state, attempt=attempt, verdict=verdict).write(self.status, durable=False)
        return True


@dataclass(frozen=True)
class Attempt:
    """The folder of one start of all ranks."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def launch(self) -> Path:
        """Written by the first node's launcher when its port is known; the other nodes wait for it."""
        return self.path / "launch.json"

    @property
    def begun(self) -> Path:
        """Written by rank 0 after its first step: from which checkpoint it went on (0 for none), and when."""
        return self.path / "begun.json"

    @property
    def heartbeat(self) -> Path:
        """Written by rank 0 each second or so: how far the attempt has come."""
        return self.path / "heartbeat.json"

    @property
    def versions(self) -> Path:
        """Written by rank 0 when it starts: the versions, the device and the precision that it computes with."""
        return self.path / "versions.json"

    @property
    def stop(self) -> Path:
        """There when somebody wants the run to save and leave; holds the reason."""
        return self.path / "stop.json"

    @property
    def saved(self) -> Path:
        """Written by rank 0 when the attempt ended in order: finished or stopped, and at which step."""
        return self.path / "saved.json"

    @property
    def verdict(self) -> Path:
        """Written by the first node's launcher when the attempt is over: what happened and what comes next."""
        return self.path / "verdict.json"

    def present(self, node: int) -> Path:
        """Written by each node's launcher before its torchrun starts: where it is, and whether it reaches the first."""
        return self.path / f"node{node}.present.json"

    def down(self, node: int) -> Path:
        """Written by each node's launcher when its torchrun has ended: its exit code."""
        return self.path / f"node{node}.down.json"

    def log(self, rank: int) -> Path:
        return self.path / f"rank{rank}.log"

    def node_log(self, node: int) -> Path:
        """What torchrun itself, and a rank before it has its own log, printed."""
        return self.path / f"node{node}.log"

    def error(self, rank: int) -> Path:
        return self.path / f"rank{rank}.error.json"

    def stacks(self, rank: int) -> Path:
        """The step that a rank has come to, and where each of its threads stood if it was found to hang."""
        return self.path / f"rank{rank}.stacks"

    def errors(self) -> list[RankError]:
        """What went wrong on each rank that could say so, the earliest first."""
        found = [RankError.read(path) for path in self.path.glob("rank*.error.json")]
        return sorted(filter(None, found), key=lambda error: error.time)

    def ask_to_stop(self, reason: str) -> None:
        """Asks the ranks to save at their next common step and leave. The first reason stands."""
        if not self.stop.exists():
            StopRequest(reason=reason).write(self.stop)

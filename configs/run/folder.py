"""A run is a folder. All paths in it are derived here, and all files in it are written atomically.

    runs/<name>/<time>-<id>/
        config.yaml      the resolved config, which the workers read
        plan.json        processes and environment, which the node launchers read
        code/            a copy of the code from when the run was submitted
        job.json         the backend and the job's id
        lock.json        the command that is changing the run, locked by it
        status.json      the state of the run
        result.json      the result of a finished run
        fork.json        the run that it was forked from
        vocabulary.json  the words of a model of texts and their numbers, a tokenizer.json
        starting_weights.json   what the model took of the weights in `initialize`
        nondeterministic/   a file for each operation without a deterministic implementation
        attempts/<k>/    one start of all ranks: its heartbeat, logs, errors and stop request
        compiled/        kernels of torch.compile
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

from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.records import State, Status

ATTEMPT = re.compile("[0-9]{3,}")
"""The name of an attempt's folder."""


@dataclass(frozen=True)
class RunDir:
    """The paths of one run. Creating the object does not touch the disk."""

    path: Path

    @classmethod
    def new(cls, runs: Path, name: str, now: float | None = None) -> RunDir:
        """A new run of experiment `name` below `runs`. Its id is the time in UTC, so that ids are in order
        at the end of daylight saving time and in several time zones, and five random characters."""
        moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        alphabet = "abcdefghjkmnpqrstuvwxyz23456789"  # no characters that look alike
        letters = "".join(alphabet[byte % len(alphabet)] for byte in os.urandom(5))
        return cls(runs.absolute() / name / f"{moment}-{letters}")

    @property
    def id(self) -> str:
        return self.path.name

    @property
    def all_runs(self) -> Path:
        """The folder of all runs."""
        return self.path.parent.parent

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def job(self) -> Path:
        """Written by the submitting command; status.json may already be written by the job."""
        return self.path / "job.json"

    @property
    def lock(self) -> Path:
        """Locked by the command that starts, stops, cancels or cleans the run (`lock.py`)."""
        return self.path / "lock.json"

    @property
    def status(self) -> Path:
        return self.path / "status.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def fork(self) -> Path:
        return self.path / "fork.json"

    @property
    def vocabulary(self) -> Path:
        return self.path / "vocabulary.json"

    @property
    def starting_weights(self) -> Path:
        return self.path / "starting_weights.json"

    @property
    def replay(self) -> Path:
        """In the folder of a replay: how far it computes (`replay_records.py`)."""
        return self.path / "replay.json"

    @property
    def attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def compiled(self) -> Path:
        """What torch.compile has made of the model, so that a restart need not compile it again."""
        return self.path / "compiled"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def trackers(self) -> Path:
        """What is sent to trackers: for each a record NAME.json and a log, written by the process that sends it."""
        return self.path / "trackers"

    def tracker(self, name: str) -> Path:
        return self.trackers / f"{name}.json"

    @property
    def notifications(self) -> Path:
        """A file for each event that was reported, made by the process that does it, and its log."""
        return self.path / "notifications"

    @property
    def nondeterministic(self) -> Path:
        """A file for each operation without a deterministic implementation that a rank used (`determinism.py`)."""
        return self.path / "nondeterministic"

    @property
    def submitit(self) -> Path:
        return self.path / "submitit"

    def attempt(self, number: int) -> Attempt:
        return Attempt(self.attempts / f"{number:03d}")

    def all_attempts(self) -> list[Attempt]:
        """The attempts so far, oldest first. Folders with other names, such as copies, are ignored."""
        numbers = (int(one.name) for one in self.attempts.glob("[0-9]*") if ATTEMPT.fullmatch(one.name))
        return [self.attempt(number) for number in sorted(numbers)]

    def newest_attempt(self) -> Attempt | None:
        """The newest attempt, which may write; None before the first."""
        return next(reversed(self.all_attempts()), None)

    def newest_number(self) -> int:
        """The newest attempt's number; -1 before the first."""
        return newest.number if (newest := self.newest_attempt()) else -1

    def is_superseded(self, attempt: int) -> bool:
        """Whether a newer attempt has taken over the run, so that the attempt of this number must not write."""
        return self.newest_number() > attempt

    def claim_attempt(self) -> Attempt:
        """Creates the next attempt's folder. `mkdir` gives each number to exactly one caller."""
        self.attempts.mkdir(parents=True, exist_ok=True)
        while True:
            attempt = self.attempt(self.newest_number() + 1)
            try:
                attempt.path.mkdir()
            except FileExistsError:
                continue  # another launcher was faster: try the next number
            return attempt

    def write_status(self, state: State, *, attempt: int, verdict: str = "") -> bool:
        """Writes the run's state to status.json on behalf of `attempt` (-1 before the first). Returns whether it was
        written: it is not if a newer attempt has taken over."""
        if self.is_superseded(attempt):
            return False
        Status(state=state, attempt=attempt, verdict=verdict).write(self.status, durable=False)
        return True

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

from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.rank_records import IdleGpus
from drumbeat.configs.run.records import NodeDown, RankError, State, Status, StopRequest

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


@dataclass(frozen=True)
class Attempt:
    """The folder of one start of all ranks."""

    path: Path

    @property
    def number(self) -> int:
        return int(self.path.name)

    @property
    def launch(self) -> Path:
        """Written by the first node's launcher once its port is known; the other nodes wait for it."""
        return self.path / "launch.json"

    @property
    def secret(self) -> Path:
        """Written by the first node's launcher before launch.json, and readable by the owner only: the secret by which
        the launchers of this attempt recognize each other (`launch/node/handshake.py`)."""
        return self.path / "secret"

    @property
    def first_step(self) -> Path:
        """Written by rank 0 after its first step: when, and from which checkpoint it resumed (0 for none)."""
        return self.path / "first_step.json"

    @property
    def heartbeat(self) -> Path:
        """Written by rank 0 about once a second: the progress of the attempt."""
        return self.path / "heartbeat.json"

    @property
    def ranks(self) -> Path:
        """Written by rank 0 every few seconds: how the ranks spend their time, and which are slow."""
        return self.path / "ranks.json"

    @property
    def versions(self) -> Path:
        """Written by rank 0 when it starts: the versions, the device and the precision that it computes with."""
        return self.path / "versions.json"

    @property
    def stop(self) -> Path:
        """Written to make the run save and stop; holds the reason."""
        return self.path / "stop.json"

    @property
    def profile(self) -> Path:
        """Written by `drumbeat profile`: a request to profile the next steps."""
        return self.path / "profile.json"

    def profiles(self) -> list[Path]:
        """The files of all profiles, by step."""
        return sorted(self.path.glob("profile-*.json"), key=lambda path: (len(path.name), path.name))

    def profiled(self, step: int) -> Path:
        """Written by rank 0: what a profile from this step on has measured."""
        return self.path / f"profile-{step}.json"

    def trace(self, step: int, rank: int) -> Path:
        """Written by the rank: torch's trace of a profile from this step on."""
        return self.path / f"profile-{step}-rank{rank}.json.gz"

    @property
    def steps(self) -> Path:
        """Written by rank 0: the loss of each step, and digests of its gradient (`step_log.py`)."""
        return self.path / "steps.bin"

    @property
    def saved(self) -> Path:
        """Written by rank 0 when the attempt ends normally: finished or stopped, and at which step."""
        return self.path / "saved.json"

    @property
    def verdict(self) -> Path:
        """Written by the first node's launcher when the attempt has ended: what happened and what happens next."""
        return self.path / "verdict.json"

    def node_up(self, node: int) -> Path:
        """Written by each node's launcher before its torchrun starts: its host, and if it reaches the first node."""
        return self.path / f"node{node}.up.json"

    def node_down(self, node: int) -> Path:
        """Written by each node's launcher when its torchrun has ended: its exit code."""
        return self.path / f"node{node}.down.json"

    @property
    def node_failed(self) -> Path:
        """Made with the first report of a torchrun that has failed or was ended: the other launchers look for it."""
        return self.path / "node_failed"

    def idle_gpus(self, node: int) -> Path:
        """Written by each node's launcher if GPUs of the node are idle for long."""
        return self.path / f"node{node}.gpus.json"

    def log(self, rank: int) -> Path:
        return self.path / f"rank{rank}.log"

    def node_log(self, node: int) -> Path:
        """The output of torchrun, and of a rank before it has its own log."""
        return self.path / f"node{node}.log"

    def error(self, rank: int) -> Path:
        return self.path / f"rank{rank}.error.json"

    def replayed(self, rank: int) -> Path:
        """Written by a rank of a replay: what it computed in the step that is looked at."""
        return self.path / f"rank{rank}.step.json"

    def stacks(self, rank: int) -> Path:
        """The current step of a rank, and the stacks of its threads if it hangs."""
        return self.path / f"rank{rank}.stacks"

    def errors(self) -> list[RankError]:
        """The errors of all ranks that could write one, earliest first."""
        found = [RankError.read(path) for path in self.path.glob("rank*.error.json")]
        return sorted(filter(None, found), key=lambda error: error.time)

    def all_idle_gpus(self) -> list[IdleGpus]:
        """The GPUs that are idle for long, by node."""
        found = [IdleGpus.read(path) for path in sorted(self.path.glob("node*.gpus.json"))]
        return [one for one in found if one and one.minutes]

    def report(self, node: int, down: NodeDown) -> None:
        """Records that a node's torchrun has ended; if it failed, the other nodes end theirs."""
        down.write(self.node_down(node))
        if down.exit_code != 0:
            write_text(self.node_failed, "", durable=False)

    def request_stop(self, reason: str) -> None:
        """Asks the ranks to save at their next common step and exit. If there is a request already, it stays."""
        if not self.stop.exists():
            StopRequest(reason=reason).write(self.stop)

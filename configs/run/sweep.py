"""A sweep is a folder: runs/NAME/, which holds its records beside the runs of its trials.

    runs/<name>/
        sweep.json         what is tried, and the trials
        sweep_config.yaml  the resolved config that all trials share
        sweep_plan.json    processes and environment that all trials share
        sweep_queue.json   the process that starts the trials on this machine
        sweep.log          its output
        code/              the copy of the code that all trials run
        submitit/          the logs of SLURM's job arrays
        <id>-0007/         the run of trial 7, which exists once it has been started
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import open_lock
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.record import Record
from drumbeat.configs.run.records import BackendName

QUEUE_LOCK = ".queue.lock"
MOMENT = 1.0
"""Seconds to wait for the queue's lock in any case: `queue_is_running` takes it for an instant."""


@dataclass(frozen=True, kw_only=True)
class Trial(Record):
    """One run of a sweep."""

    number: int
    values: dict[str, str]
    """What is written behind each key of KEY=VALUE."""

    @property
    def assignments(self) -> list[str]:
        """Its values as KEY=VALUE."""
        return [f"{key}={value}" for key, value in self.values.items()]


@dataclass(frozen=True, kw_only=True)
class Sweep(Record):
    """sweep.json: what a sweep tries, and its trials. Written by the commands that start, extend, stop and resume it,
    and by its queue, each under the sweep's lock."""

    id: str
    """The id of trial 7 is this id and -0007."""
    typed: str
    """The command that started it."""
    config: str
    """The config's file; of forks, that of the run that they are forked from."""
    parent: str = ""
    """The folder of the run that each trial is a fork of; '' if trials begin at step 0."""
    at: int = 0
    """The last step that such trials share with that run."""
    changes: tuple[str, ...] = ()
    """The KEY=VALUE that all trials share."""
    space: dict[str, str] = field(default_factory=dict)
    """What is written behind each other key: see `launch/sweeps/notation.py`."""
    samples: int | None = None
    """Draws from the distributions; None without a distribution."""
    seed: int = 0
    """Of the draws."""
    trials: tuple[Trial, ...] = ()
    backend: BackendName = "local"
    slots: int | None = None
    """Trials that run at the same time at most; None for as many as SLURM starts."""
    monitor: str = ""
    """The metric that says which trial is best: `evaluation.monitor` of the config."""
    mode: str = "min"
    asha: bool = False
    """Whether trials are paused at rungs, so that only the best are trained to the end: `launch/sweeps/asha.py`."""
    rungs: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """The metric of each trial, by its number, at the rungs that it has reached."""
    pruned: tuple[int, ...] = ()
    """The trials that were stopped at a rung, and have not been resumed."""
    again: tuple[int, ...] = ()
    """The trials that the queue has to resume although they have ended."""
    sampler: str = ""
    """The sampler of optuna that chooses the values; '' if they are drawn independently."""
    halted: bool = False
    """Whether it was stopped or cancelled, so that no trial may start."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why trials could not be started, by their numbers; until the sweep is resumed."""
    jobs: tuple[str, ...] = ()
    """The job arrays that SLURM has accepted, by their ids."""


@dataclass(frozen=True, kw_only=True)
class Queue(Record):
    """sweep_queue.json: the process that starts the trials of a sweep on this machine. Written by that process, which
    holds a lock (flock) while it runs."""

    pid: int = field(default_factory=os.getpid)
    host: str = field(default_factory=socket.gethostname)
    space: str = field(default_factory=process_space)
    time: float = field(default_factory=time.time)


@dataclass(frozen=True)
class SweepDir:
    """The paths of one sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def record(self) -> Path:
        return self.path / "sweep.json"

    @property
    def config(self) -> Path:
        return self.path / "sweep_config.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "sweep_plan.json"

    @property
    def queue(self) -> Path:
        return self.path / "sweep_queue.json"

    @property
    def log(self) -> Path:
        return self.path / "sweep.log"

    @property
    def studies(self) -> Path:
        """The journal of optuna's study."""
        return self.path / "sweep_optuna.log"

    def read(self) -> Sweep:
        """The sweep. Raises `DamagedError`."""
        return Sweep.require(self.record)

    def run(self, sweep: Sweep, number: int) -> RunDir:
        """The run of a trial, which may not exist yet."""
        return RunDir(self.path / f"{sweep.id}-{number:04d}")

    @contextmanager
    def changing(self) -> Iterator[Sweep]:
        """The sweep, while nobody else changes its record. Raises `RunError` if it belongs to another user who does not
        allow it."""
        with self._open_lock(".sweep.lock") as lock:
            if lock is not None:
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield self.read()

    @contextmanager
    def queue_lock(self) -> Iterator[int | None]:
        """Holds the lock of the sweep's queue, and yields its open file; None if another process holds it. Raises
        `RunError` as `changing`."""
        with self._open_lock(QUEUE_LOCK) as lock:
            until = time.monotonic() + MOMENT
            while lock is not None:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if time.monotonic() > until:
                        lock = None
                    time.sleep(0.01)
            yield lock

    def queue_is_running(self) -> bool:
        """Whether the process that starts the trials is running: as its lock shows, or, to other users, its record."""
        try:
            with open(self.path / QUEUE_LOCK, "rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except PermissionError:
            found = Queue.read(self.queue)
            return bool(found and found.space == process_space() and Path(f"/proc/{found.pid}").exists())
        except OSError:
            return True
        return False

    @contextmanager
    def _open_lock(self, name: str) -> Iterator[int | None]:
        handle = open_lock(self.path, self.path / name, "sweep")
        try:
            yield handle
        finally:
            if handle is not None:
                os.close(handle)


def differing(trials: Sequence[Trial]) -> list[str]:
    """The keys of which not all trials have the same value."""
    keys = dict.fromkeys(key for trial in trials for key in trial.values)
    return [key for key in keys if len({trial.values.get(key) for trial in trials}) > 1]


def names_of(keys: Sequence[str]) -> dict[str, str]:
    """The shortest end of each dotted key that is no other's."""
    def end(key: str, parts: int) -> str:
        return ".".join(key.split(".")[-parts:])

    return {key: next((name for parts in range(1, key.count(".") + 1) if sum(
        end(other, parts) == (name := end(key, parts)) for other in keys) == 1), key) for key in keys}

"""Sweeps in the Python API: started, read, stopped, resumed and waited for, as `drumbeat sweep` and its siblings do it.

    sweep = drumbeat.sweep("rings.yaml", {"phases.train.optimizer.lr": [1e-2, 3e-3], "seed": range(5)}, procs=1)
    sweep.wait().best().metrics
    sweep.to_pandas()

It stands above `drumbeat.api`, whose rules it shares. docs/python.md explains it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drumbeat.api import Overrides, Run, Runs, pandas_module, plain_value, started
from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.records import ENDED
from drumbeat.configs.run.sweep import SweepDir
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.sweeps.control import cancel, keep_queue, resume, stop
from drumbeat.launch.sweeps.find import require_sweep
from drumbeat.launch.sweeps.notation import section
from drumbeat.launch.sweeps.states import (
    PRUNED,
    REFUSED,
    WAITING,
    TrialState,
    best_of,
    counts_text,
    facts,
    state_text,
    states_of,
    status_text,
)

if TYPE_CHECKING:
    import pandas

POLL_SECONDS = 1.0


def sweep(config: str | Path | Mapping[str, Any], overrides: Overrides = (), *, at: int | str | None = None,
          sample: int | None = None, draw_seed: int = 0, asha: str | None = None, sampler: str | None = None,
          max_parallel: int | None = None, gpus: int | None = None, procs: int | None = None, nodes: int | None = None,
          slurm: bool = False, profile: str | None = None, name: str | None = None, runs: str | Path = "runs",
          preflight: bool = True, snapshot: bool = True) -> Sweep:
    """Starts a sweep and returns it: as `drumbeat sweep CONFIG`, whose options have the same names. Its queue outlives
    this process. `overrides` are words, ["seed=0..4"], or a dict like a config's `sweep:` section: a list or a range is
    one of values to try, a text may be a range or a distribution, "loguniform(1e-5,1e-1)". `config` as of
    `drumbeat.run`; with `at`, a step or a percentage ("60%"), it is a run instead, as commands name it, and each trial
    is a fork of that run at that step.

    It prints what the command prints, and returns once the sweep is checked and started or queued. Raises the
    `UserError` of whatever is wrong, and then nothing is left behind.
    """
    return Sweep(started("sweep", config, _words(overrides), {
        "at": at, "sample": sample, "draw-seed": draw_seed or None, "asha": asha, "sampler": sampler,
        "max-parallel": max_parallel, "gpus": gpus, "procs": procs, "nodes": nodes, "slurm": slurm, "profile": profile,
        "name": name, "runs": runs, "no-preflight": not preflight, "no-snapshot": not snapshot}))


class Sweep:
    """A sweep, as its folder tells of it at the moment of each question; nothing is kept."""

    def __init__(self, sweep: str | Path, runs: str | Path = "runs") -> None:
        """The sweep of a name among `runs`, or in a folder. Raises `RunError`."""
        self.folder: SweepDir = require_sweep(str(sweep), Path(runs))

    @property
    def path(self) -> Path:
        """The sweep's folder."""
        return self.folder.path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def trials(self) -> list[TrialState]:
        """What each trial does, in order: `trial.number`, `trial.values` (texts, by key), `state`, `step`, `steps`, and
        `best`, the best value of the monitored metric so far. SLURM is asked once for all."""
        return states_of(self.folder, self.folder.read())

    @property
    def status(self) -> dict[str, Any]:
        """The fields of `drumbeat status SWEEP --json`."""
        return facts(self.folder, self.folder.read(), self.trials)

    @property
    def state(self) -> str:
        """waiting, running, stopping, stopped, ended (some trials have not finished) or finished."""
        return state_text(self.folder.read(), self.trials)

    @property
    def runs(self) -> Runs:
        """The runs of the trials that have started, in order."""
        record = self.folder.read()
        found = (self.folder.run(record, trial.number) for trial in record.trials)
        return Runs(Run(run) for run in found if run.plan.exists())

    def best(self) -> Run:
        """The run of the best trial so far. Raises `RunError` if no trial has a value of the monitored metric."""
        record = self.folder.read()
        if order := best_of(record, states_of(self.folder, record)):
            return Run(self.folder.run(record, order[0].trial.number))
        raise RunError(Fault(what=f"no trial of {self.name} has a value of {record.monitor} yet", where=str(self.path),
                             remedy="Wait until one has evaluated."))

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each trial: `number`, `id`, `state`, `step`, `steps`, the monitored metric by its name, and a
        column for each key that varies, with its values as in a config. Raises `LaunchError` without pandas."""
        from drumbeat.configs.yaml_text import parse

        record = self.folder.read()
        rows = [{"number": one["number"], "id": one["id"], "state": one["state"], "step": one["step"],
                 "steps": one["steps"], record.monitor: one["best"],
                 **{key: parse(text).value for key, text in one["values"].items()}}
                for one in facts(self.folder, record, self.trials)["trials"]]
        return pandas_module("Sweep.to_pandas").DataFrame(rows)

    def stop(self) -> str:
        """Starts no more trials, and asks those that run to save a checkpoint and exit, as `drumbeat stop`. Returns a
        message. Raises `RunError`."""
        return stop(self.folder)

    def cancel(self) -> str:
        """The same at once, as `drumbeat cancel`. Returns a message. Raises `RunError`."""
        return cancel(self.folder)

    def resume(self, *, trust: bool = False) -> str:
        """Starts the trials that have not been started, and resumes those that have ended before they finished, as
        `drumbeat resume`. Returns a message. Raises a `UserError`."""
        return resume(self.folder, trust)

    def extend(self, overrides: Overrides = (), *, sample: int | None = None, preflight: bool = True) -> Sweep:
        """Adds values and draws, as `drumbeat sweep --extend`. Returns itself. Raises a `UserError`."""
        started("sweep", f"--extend={self.path}", _words(overrides), {"sample": sample, "no-preflight": not preflight})
        return self

    def wait(self, timeout: float | None = None, *, progress: bool = True) -> Sweep:
        """Waits until no trial runs and none is about to start, and shows their states in a line whenever they change.
        Starts the queue again if it was killed. An interrupt (Ctrl-C) ends the wait and not the sweep. Returns itself.
        Raises `TimeoutError` after so many seconds."""
        until, shown = time.monotonic() + (timeout or 0.0), ""
        while True:
            over, text = self._look()
            if progress and text != shown:
                print(text, flush=True)
            if over:
                return self
            if timeout is not None and time.monotonic() > until:
                raise TimeoutError(f"{text} after {timeout:g} s")
            shown = text
            time.sleep(POLL_SECONDS)

    async def finished(self) -> Sweep:
        """The same without blocking the event loop: `await sweep.finished()`. Cancelling it does not end the sweep."""
        while not (await asyncio.to_thread(self._look))[0]:
            await asyncio.sleep(POLL_SECONDS)
        return self

    def _look(self) -> tuple[bool, str]:
        """Whether the sweep has ended, and its state in a line."""
        record, trials = self.folder.read(), self.trials
        keep_queue(self.folder, record, trials)
        left = {one.state for one in trials} - {*ENDED, PRUNED, REFUSED, "damaged"}
        can_start = WAITING in left and backend_of(record.backend).on_slurm and not record.halted
        over = not (left - {WAITING} or can_start or self.folder.queue_is_running())
        return over, f"{self.name}: {state_text(record, trials)} ({counts_text(trials)})"

    def __str__(self) -> str:
        """What `drumbeat status` prints."""
        return status_text(self.folder, self.folder.read(), self.trials)

    def __repr__(self) -> str:
        return f"Sweep({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sweep) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)


def _words(overrides: Overrides) -> Sequence[str] | str:
    """The overrides as KEY=VALUE, in the notation of sweeps."""
    if not isinstance(overrides, Mapping):
        return overrides
    return [f"{key}={text}" for key, text in section(plain_value(overrides)).items()]

"""Sweeps whose trials are run folders made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import BackendName, State
from drumbeat.configs.run.sweep import Sweep, SweepDir
from drumbeat.launch.sweeps.space import numbered, spread
from tests.launch import tiny_plan
from tests.runs import write_heartbeat, write_job, write_plan, write_state

ID = "20260102-030405-abcde"


def made_sweep(runs: Path, space: dict[str, str], samples: int | None = None, backend: BackendName = "local",
               **fields: Any) -> SweepDir:
    """A sweep of the small config in runs/s, without any run."""
    folder = SweepDir(runs / "s")
    folder.path.mkdir(parents=True)
    sweep = Sweep(**{"id": ID, "typed": "drumbeat sweep small.yaml", "config": "small.yaml", "space": space,
                     "samples": samples, "trials": numbered(spread(space, samples, 0)), "slots": 2, "monitor": "loss",
                     "backend": backend, **fields})
    sweep.write(folder.record)
    folder.config.write_text(load(tiny_plan.write_config(runs), [], {"name": "s"}).as_yaml())
    plan = tiny_plan.plan(runs, "launch.gpus=0", "launch.procs=2", backend=backend)
    plan.write(folder.plan)
    return folder


def write_trial(folder: SweepDir, number: int, state: State, *, best: float | None = None, step: int = 0,
                steps: int = 100, backend: BackendName = "local", job: str | None = None) -> RunDir:
    """The run of a trial in some state."""
    run = folder.run(folder.read(), number)
    write_plan(run, backend=backend)
    write_job(run, backend, id=job)
    write_heartbeat(run, step=step, steps=steps, monitor="loss", best=best)
    write_state(run, state)
    return run


def numbers(trials: Sequence[Any]) -> list[int]:
    return [trial.number for trial in trials]

"""What all backends have in common: which of a plan's values a resumed run keeps, and when a job is running."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import BACKENDS, backend_of
from drumbeat.launch.backends.contract import Submitted
from tests.launch.tiny_plan import plan
from tests.runs import write_job, write_plan, write_state


@pytest.mark.parametrize(("backend", "gpus", "assignments", "layout"), [
    ("local", 0, ["launch.procs=4"], (1, 0, 4, 2)), ("local", 2, [], (1, 2, 2, 4)),
    ("slurm", 0, ["launch.nodes=2", "launch.gpus=4", "launch.cpus_per_rank=5"], (2, 4, 4, 5)),
])
def test_a_resumed_run_gets_the_ranks_and_threads_of_its_plan(tmp_path: Path, backend: BackendName, gpus: int,
                                                             assignments: list[str],
                                                             layout: tuple[int, ...]) -> None:
    made = plan(tmp_path, *assignments, backend=backend, gpus=gpus)
    keys = ("launch.nodes", "launch.gpus", "launch.procs", "launch.cpus_per_rank")
    values = dict(zip(keys, layout, strict=True))
    assert backend_of(backend).layout(made) == values
    again = plan(tmp_path, *(f"{key}={value}" for key, value in values.items()), backend=backend, cpus=64, gpus=gpus)
    assert again.topology == made.topology


def test_the_single_rank_of_debug_is_not_what_a_resumed_run_gets(tmp_path: Path) -> None:
    assert backend_of("debug").layout(plan(tmp_path, backend="debug")) == {}


def test_each_backend_but_the_default_has_a_flag_of_its_own() -> None:
    flags = [backend.flag for backend in BACKENDS.values()]
    assert sorted(flags) == ["", "--debug", "--here", "--slurm"]
    assert backend_of("local").flag == ""


@pytest.mark.parametrize(("handle", "running"), [
    (None, False), (SimpleNamespace(done=lambda: False), True), (SimpleNamespace(done=lambda: True), False),
])
def test_a_job_runs_until_submitit_says_that_it_is_done(handle: Any, running: bool) -> None:
    assert Submitted(id="7", handle=handle).running() is running


@pytest.mark.parametrize("name", BACKENDS)
def test_nothing_shows_that_a_run_without_a_job_or_one_that_ended_is_running(tmp_path: Path, name: BackendName) -> None:
    run = RunDir(tmp_path / "run")
    write_plan(run)
    write_state(run, "running")
    assert backend_of(name).running_evidence(View.read(run)) == ""
    write_job(run, name, id="17", host="elsewhere")
    write_state(run, "stopped")
    assert backend_of(name).running_evidence(View.read(run)) == ""

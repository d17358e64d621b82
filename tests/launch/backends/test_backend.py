"""The four backends: what each makes of a plan, and what it says of where a run is."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from drumbeat.configs.errors import LaunchError, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import BackendName, Job
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import BACKENDS, backend_of
from drumbeat.launch.plan.job import Machine
from tests.launch.tiny_plan import plan
from tests.runs import write_job, write_plan, write_state

ON_SLURM: tuple[BackendName, ...] = ("here", "slurm")
WITHOUT: tuple[BackendName, ...] = ("debug", "local")


def test_each_place_has_a_backend_and_a_flag_of_its_own() -> None:
    assert set(BACKENDS) == set(get_args(BackendName))
    assert {name: backend.flag for name, backend in BACKENDS.items()} == {
        "debug": "--debug", "local": "", "here": "--here", "slurm": "--slurm"}
    assert [name for name, backend in BACKENDS.items() if backend.on_slurm] == list(ON_SLURM)
    assert [name for name, backend in BACKENDS.items() if not backend.attached] == ["slurm"]


def test_what_a_plan_may_use() -> None:
    machine = Machine(cpus=8, gpus=("0", "1"))
    assert backend_of("local").resources(machine) == machine
    assert backend_of("debug").resources(machine) == replace(machine, one_rank=True)
    assert backend_of("slurm").resources(machine) == Machine(cpus=None, gpus=None, nodes=None)


def test_the_debugged_rank_is_one_whatever_the_config_asks_for(tmp_path: Path) -> None:
    job_plan = plan(tmp_path, "launch.gpus=4", "launch.nodes=2", backend="debug", gpus=2)
    assert (job_plan.topology.world_size, job_plan.topology.device) == (1, "cuda")
    assert backend_of("debug").layout(job_plan) == {}
    assert backend_of("local").layout(job_plan) == {
        "launch.nodes": 1, "launch.gpus": 1, "launch.procs": 1, "launch.cpus_per_rank": 8}


def test_requests_of_this_machine(tmp_path: Path) -> None:
    text = backend_of("debug").request(plan(tmp_path, backend="debug")).text
    assert text == "drumbeat.trainers.worker.main('/runs/small/RUN', ATTEMPT)"
    text = backend_of("local").request(plan(tmp_path, "launch.procs=2")).text
    assert text.endswith("--master-port=PORT \\\n  --max-restarts=0 \\\n"
                         "  -m drumbeat.trainers.worker /runs/small/RUN ATTEMPT")


@pytest.mark.parametrize(("backend", "titles"), [
    ("debug", ["call"]), ("local", ["command on each node"]), ("slurm", ["command on each node", "sbatch script"])])
def test_the_sections_of_a_dry_run(tmp_path: Path, backend: BackendName, titles: list[str]) -> None:
    request = backend_of(backend).request(plan(tmp_path, "launch.gpus=0", backend=backend))
    assert [title for title, _ in request.sections] == titles
    assert request.text in request.sections[-1][1]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A running run, seen from a machine without SLURM."""
    monkeypatch.setenv("PATH", "/nowhere")
    run = RunDir(tmp_path / "small" / "RUN")
    write_plan(run)
    write_state(run, "running")
    return run


@pytest.mark.parametrize(("backend", "host", "label"), [
    ("debug", "", "debug"), ("local", "", "local"), ("local", "away", "away"), ("debug", "away", "away"),
    ("here", "away", "job 7"), ("slurm", "away", "job 7")])
def test_the_label_names_the_machine_or_the_job(run: RunDir, backend: BackendName, host: str, label: str) -> None:
    write_job(run, backend, id="7", host=host or socket.gethostname())
    assert backend_of(backend).label(View.read(run)) == label


@pytest.mark.parametrize("backend", get_args(BackendName))
def test_a_run_that_has_ended_does_not_run(run: RunDir, backend: BackendName) -> None:
    """SLURM and other machines are not asked."""
    write_job(run, backend, id="7", host="away")
    assert backend_of(backend).running_evidence(View.read(run)) != ""
    write_state(run, "stopped")
    assert backend_of(backend).running_evidence(View.read(run)) == ""


@pytest.mark.parametrize(("backend", "message"), [
    ("debug", "on away, last heartbeat"), ("local", "on away, last heartbeat"),
    ("here", "SLURM does not answer"), ("slurm", "SLURM does not answer")])
def test_an_unreachable_run_cannot_be_cancelled(run: RunDir, backend: BackendName, message: str) -> None:
    write_job(run, backend, id="7", host="away")
    with pytest.raises(RunError, match=message):
        backend_of(backend).cancel(View.read(run))
    assert not Job.require(run.job).cancelled


def test_a_debug_run_is_this_process(tmp_path: Path) -> None:
    """Training begins only when all records are written."""
    started = backend_of("debug").submit(backend_of("debug").request(plan(tmp_path, backend="debug")))
    assert (started.id, started.pid, started.running()) == (None, os.getpid(), False)
    assert started.work is not None


def test_only_the_slurm_backend_needs_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    job_plan = plan(tmp_path, "launch.gpus=0")
    for backend in WITHOUT:
        backend_of(backend).check_startable(job_plan)
    with pytest.raises(LaunchError, match="SLURM is not installed here"):
        backend_of("slurm").check_startable(job_plan)

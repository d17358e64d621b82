"""Starting a sweep: what is printed, checked and written, and what SLURM gets."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import LaunchError, RunError
from drumbeat.configs.load import load
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.sweep import SweepDir, Trial
from drumbeat.launch.commands.main import main, parse
from drumbeat.launch.sweeps import start
from drumbeat.launch.sweeps.resolve import resolve_extension, resolve_sweep
from tests.launch.sweeps.made import made_sweep
from tests.launch.tiny_plan import FACTS, write_config

LR = "phases.head.optimizer.lr"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a config and a cluster that takes every job; the preflight check finds no fault."""
    (tmp_path / "bin").mkdir()
    for name, script in (("sbatch", 'for file; do :; done; if [ -f "$file" ]; then cp "$file" sent; echo 4711; fi'),
                         ("srun", ""), ("squeue", ""), ("sinfo", "hostname"), ("scontrol", "")):
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return tmp_path


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The configs that the preflight check was run on."""
    found: list[Any] = []

    def preflight(config: Any, plan: Any) -> dict[str, Any]:
        found.append(config)
        return FACTS

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", preflight)
    return found


def test_the_plan(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "small.yaml", f"{LR}=loguniform(1e-4,1e-2)", "seed=0..4", "--sample", "200", "--procs", "2",
                 "--max-parallel", "3", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"""\
sweep      small-sweep: 1,000 trials
draws      200, seed 0
each       2 ranks on the CPU, on this machine
where      a queue on this machine, 3 at a time
varies     {LR}=loguniform(1e-4,1e-2)
           seed=0..4
preflight  1 combination of model and data
folder     runs/small-sweep
trial 0    {LR}=0.00289434 seed=0
trial 1    {LR}=0.00289434 seed=1
trial 2    {LR}=0.00289434 seed=2
...
trial 997  {LR}=0.0047577 seed=2
trial 998  {LR}=0.0047577 seed=3
trial 999  {LR}=0.0047577 seed=4

# Dry run: nothing was started or written.
"""
    assert not (here / "runs").exists()


def test_submitted_as_an_array(here: Path, checked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The preflight check runs once for each model, and the code is copied once."""
    words = ["sweep", "small.yaml", "model.width=8,16", "seed=0..3", "--slurm", "--procs", "2", "--max-parallel", "3"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "where      1 SLURM job array, 0-7%3\n" in out
    assert out.endswith("SLURM job  4711\n\ndrumbeat status small-sweep\ndrumbeat report small-sweep\n"
                        "drumbeat stop small-sweep\n")
    assert [config.model["width"] for config in checked] == [8, 16]
    folder = SweepDir(here / "runs" / "small-sweep")
    sweep, plan = folder.read(), JobPlan.require(folder.plan)
    assert (sweep.jobs, sweep.typed) == (("4711",), "drumbeat " + " ".join(words))
    assert plan.versions and plan.versions.torch == "2.14.1"
    assert f"{folder.path}/code" in plan.environment["PYTHONPATH"]
    assert load(folder.config).config.name == "small-sweep"
    script = (here / "sent").read_text()
    assert re.search(rf"--comment={sweep.id}@0$", script, re.MULTILINE)
    assert (folder.path / "code" / "snapshot.json").exists()
    assert not any(folder.path.glob(f"{sweep.id}-*")), "a run is made when it starts"


def test_nothing_is_left_if_slurm_refuses(here: Path, checked: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bin" / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid account' >&2; exit 1\n")
    assert main(["sweep", "small.yaml", "seed=0..3", "--slurm", "--procs", "2", "--no-preflight"]) == 2
    assert "a job array of the sweep's 4 trials" in " ".join(capsys.readouterr().err.split())
    assert not (here / "runs").exists()


def test_a_folder_that_another_command_has_made_meanwhile_is_kept(here: Path, capsys: pytest.CaptureFixture[str]
                                                                  ) -> None:
    planned = resolve_sweep(parse(["sweep", "small.yaml", "seed=0..3", "--procs", "2", "--no-preflight"]))
    planned.folder.path.mkdir(parents=True)
    (planned.folder.path / "theirs").touch()
    with pytest.raises(LaunchError, match="the sweep's folder cannot be written: File exists"):
        start.start_sweep(planned)
    assert (planned.folder.path / "theirs").exists()


def test_secrets_are_for_the_owner_alone(here: Path, checked: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "start_queue", lambda folder: 42)
    assert main(["sweep", "small.yaml", "model.token=one,two", "--procs", "2"]) == 0
    folder = SweepDir(here / "runs" / "small-sweep")
    with folder.changing() as sweep:
        sweep.write(folder.record)
    assert [path.stat().st_mode & 0o077 for path in (folder.record, folder.log)] == [0, 0]


def test_an_extension_keeps_the_values_that_a_sampler_has_chosen_meanwhile(here: Path, checked: list[Any],
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "start_queue", lambda folder: 42)
    folder = made_sweep(here / "runs", {"seed": "randint(0,9)"}, samples=1, sampler="random", trials=(
        Trial(number=0, values={}),))
    planned = resolve_extension(parse(["sweep", "--extend", "s", "--sample", "2"]), folder, folder.read())
    chosen = Trial(number=0, values={"seed": "7"})
    replace(folder.read(), trials=(chosen,)).write(folder.record)
    start.extend_sweep(planned)
    assert folder.read().trials == (chosen, Trial(number=1, values={}))
    with pytest.raises(RunError, match="another command has extended the sweep"):
        start.extend_sweep(planned)


def test_extended(here: Path, checked: list[Any], capsys: pytest.CaptureFixture[str],
                  monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "start_queue", lambda folder: 42)
    assert main(["sweep", "small.yaml", "seed=0..1", "--procs", "2"]) == 0
    assert "queue      process 42\n" in capsys.readouterr().out
    folder = SweepDir(here / "runs" / "small-sweep")
    assert main(["sweep", "--extend", "small-sweep", "seed=0..2"]) == 0
    assert "sweep      small-sweep: 1 more trial\n" in capsys.readouterr().out
    assert [trial.assignments for trial in folder.read().trials] == [["seed=0"], ["seed=1"], ["seed=2"]]
    assert len(checked) == 2
    assert main(["sweep", "--extend", "small-sweep", "seed=1"]) == 0
    assert capsys.readouterr().out == "small-sweep has these trials already\n"

"""From the command line to the trials, and what is wrong before anything is started."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from drumbeat.configs.errors import UserError
from drumbeat.configs.load import load
from drumbeat.launch.commands.main import parse
from drumbeat.launch.plan.job import Machine
from drumbeat.launch.sweeps.resolve import Planned, resolve_extension, resolve_sweep, slots_of
from tests.launch.sweeps.made import made_sweep, write_trial
from tests.launch.tiny_plan import CONFIG, write_config

LR = "phases.head.optimizer.lr"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    return tmp_path


def resolved(*words: str) -> Planned:
    return resolve_sweep(parse(["sweep", "small.yaml", "--procs", "2", *words]))


def test_a_thousand_trials_are_planned_without_building_each() -> None:
    planned = resolved(f"{LR}=loguniform(1e-5,1e-1)", "seed=0..4", "--sample", "200", "batch_size=16")
    sweep = planned.sweep
    assert (len(sweep.trials), sweep.changes, sweep.space) == (
        1000, ("batch_size=16",), {LR: "loguniform(1e-5,1e-1)", "seed": "0..4"})
    assert (planned.folder.path, len(planned.checks), planned.unchecked) == (Path.cwd() / "runs" / "small-sweep", 1, 0)
    assert planned.spec.loaded.config.name == "small-sweep"
    assert planned.spec.code == planned.folder.path / "code"
    assert planned.spec.run_dir == planned.folder.run(sweep, 0)


def test_each_structure_is_checked_up_to_a_few() -> None:
    planned = resolved("model.width=8..12", f"{LR}=1,2")
    assert [loaded.config.model["width"] for loaded in planned.checks] == [8, 9, 10]
    assert planned.unchecked == 2


def test_the_section_of_the_config() -> None:
    """What is typed goes before it, and a single value is the same in all trials."""
    Path("small.yaml").write_text(f"{CONFIG}sweep:\n  seed: 0..2\n  {LR}: [1e-3, 1e-4]\n  batch_size: 16\n")
    assert load("small.yaml").config.seed == 0
    planned = resolved("seed=5,6")
    assert planned.sweep.space == {LR: "0.001,0.0001", "seed": "5,6"}
    assert planned.sweep.changes == ("batch_size=16",)
    assert resolved("seed=5").sweep.space == {LR: "0.001,0.0001"}
    Path("small.yaml").write_text(f"{CONFIG}sweep: {{seed: []}}\n")
    with pytest.raises(UserError, match="seed has no values"):
        resolved()
    Path("small.yaml").write_text(f"{CONFIG}sweep: [1, 2]\n")
    with pytest.raises(UserError, match="`sweep:` must be a section"):
        resolved()


@pytest.mark.parametrize(("words", "what"), [
    (["bach_size=1,2"], "Did you mean 'batch_size'"),
    (["seed=5..1"], "the range of seed is empty"),
    (["batch_size=16,1,8", "phases.finetune.batch_size=null"], "batch_size 1 is smaller than the world size, 2"),
    (["batch_size=8,x"], "batch_size"),
    (["launch.procs=1,2"], "launch.procs is the same in all trials of a sweep"),
    (["seed=3"], "nothing varies: there is one trial"),
    ([f"{LR}=uniform(0,1)"], "the number of draws is not given"),
    (["seed=0..1", "--asha", "accuracy"], "trials are compared by the monitored metric, loss"),
    (["seed=0..1", "--asha", "loss", "--slurm"], "successive halving needs a queue on this machine"),
    (["seed=0..1", "--max-parallel", "0"], "at least one trial runs at a time"),
    (["seed=0..1", "--sampler", "tpe"], "the number of trials that the sampler chooses is not given"),
    (["seed=0..1", "other.yaml"], "more than one config"),
])
def test_mistakes(words: list[str], what: str) -> None:
    with pytest.raises(UserError) as caught:
        resolved(*words)
    assert what in " ".join(str(caught.value).split())


def test_its_name() -> None:
    made_sweep(Path("runs"), {"seed": "0..1"})
    with pytest.raises(UserError, match="'s' exists already"):
        resolved("seed=0..1", "--name", "s")
    Path("runs/small-sweep").mkdir()
    Path("runs/small-sweep/sweep.json").touch()
    assert resolved("seed=0..1").folder.name == "small-sweep-2"
    Path("runs/small-sweep-2").mkdir()
    assert resolved("seed=0..1").folder.name == "small-sweep-3", "another command is checking small-sweep-2"
    assert resolved("seed=0..1", "--name", "t").folder.name == "t"


@pytest.mark.parametrize(("launch", "gpus", "most", "slots"), [
    ({"gpus": 2}, 8, None, 4), ({"gpus": 2}, 8, 3, 3), ({"gpus": 2}, 8, 9, 4), ({}, 8, None, 1),
    ({"gpus": 8}, 4, None, 1), ({"gpus": 0, "procs": 2}, 0, None, 1), ({"gpus": 0, "procs": 2}, 0, 3, 3),
    ({"gpus": 0, "procs": 2, "cpus_per_rank": 2}, 0, None, 4), ({"gpus": 0, "procs": 2, "cpus_per_rank": 2}, 0, 7, 7),
])
def test_how_many_run_at_a_time(launch: dict[str, int], gpus: int, most: int | None, slots: int) -> None:
    """Each has its own GPUs; cores may be shared, and are divided if the config leaves their number open."""
    config = load("small.yaml").config
    config = dataclasses.replace(config, launch=dataclasses.replace(config.launch, **launch))
    assert slots_of(config, Machine(cpus=16, gpus=tuple(map(str, range(gpus)))), most) == slots


def test_the_cores_are_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drumbeat.launch.plan.job.usable_cpus", lambda: 16)
    assert resolved("seed=0..1", "--max-parallel", "4").spec.plan.topology.cpus_per_rank == 2


def test_extended() -> None:
    folder = made_sweep(Path("runs").absolute(), {"seed": "0..1", LR: "1e-3,1e-4"})
    write_trial(folder, 0, "finished")
    planned = resolve_extension(parse(["sweep", "--extend", "s", "seed=2"]), folder, before := folder.read())
    assert planned.sweep.trials[:4] == before.trials
    assert [trial.values["seed"] for trial in planned.sweep.trials[4:]] == ["2", "2"]
    assert planned.spec.loaded.config.name == "s"
    with pytest.raises(UserError, match="a sweep is extended by KEY=VALUE and --sample only"):
        resolve_extension(parse(["sweep", "--extend", "s", "small.yaml", "--gpus", "2"]), folder, before)
    with pytest.raises(UserError, match="batch_size does not vary in this sweep"):
        resolve_extension(parse(["sweep", "--extend", "s", "batch_size=1"]), folder, before)

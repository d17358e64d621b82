"""The drill passes if nothing is lost, and says what is lost and which faults it could not inject."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result, Status
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of
from tests.tiny import Net, write_config
from tests.warm import run_python

pytestmark = pytest.mark.slow

AT = "torch.optim.lr_scheduler"
RECIPE = [
    "phases.head.optimizer={_target_: tests.trainers.own_optimizers.ScheduleFree, lr: 0.05}",
    "phases.finetune.optimizer={_target_: torch.optim.AdamW, lr: 1e-2}",
    "phases.finetune.groups={vectors: {ndim: [0, 1], optimizer: {weight_decay: 0}}, "
    "matrices: {ndim: [2], optimizer: {_target_: torch.optim.Muon, lr: 0.02}}}",
    "phases.finetune.layers=[backbone, head]", "phases.finetune.layer_decay=0.5",
    f"phases.finetune.scheduler={{_target_: {AT}.SequentialLR, milestones: ['${{phase.steps // 5}}'], schedulers: ["
    f"{{_target_: {AT}.LinearLR, total_iters: '${{phase.steps // 5}}'}}, "
    f"{{_target_: {AT}.CosineAnnealingLR, T_max: '${{phase.steps - phase.steps // 5}}'}}]}}",
    "phases.finetune.average={_target_: torch.optim.swa_utils.AveragedModel, use_buffers: true, multi_avg_fn: "
    "{_target_: torch.optim.swa_utils.get_ema_multi_avg_fn, decay: 0.9}}",
    "initialize={weights: start.pth, only: [backbone], rename: {body: backbone}, strict: true}",
    "phases.finetune.freeze=[{type: torch.nn.BatchNorm2d}, head.3.bias]", "recompute=[{type: torch.nn.Conv2d}, head]"]
"""Parts of modern recipes, all of which a drill must leave exact."""
COMPILED = ["recompute=[]", "compile={backend: eager, dynamic: false}", "precision=fp16"]
"""Those that exclude recompute. The backend runs the graph as it is, without a compiler."""


MARKS = ["evaluation.at_start=true", "evaluation.every_epochs=2", "evaluation.every_steps=50",
         "checkpoints.keep_best=2", "checkpoints.keep_every_epochs=7", "phases.head.patience=25",
         "phases.head.min_delta=9", "phases.finetune.patience=1", "phases.finetune.min_delta=9",
         "phases.finetune.target=0.01", "budget={steps: 1000, hours: 1}"]
"""When it evaluates, what it keeps, and when it ends: both phases early, on any number of ranks, because no loss is
better by so much."""


V2 = "torchvision.transforms.v2"
SAMPLES = ["task._target_=tests.trainers.tasks.test_logged.Terms",
           "data.sampling={_target_: drumbeat.data.Repeated, times: 2}",
           "data.mix={_target_: drumbeat.data.RandomMix, p: [0.4, 0.4], of: [{_target_: drumbeat.data.Mixup}, "
           "{_target_: drumbeat.data.CutMix}]}",
           f"phases.finetune.transforms=[{{_target_: {V2}.TrivialAugmentWide}}, {{_target_: {V2}.RandomErasing}}]",
           f"evaluation.views=[{{_target_: {V2}.functional.horizontal_flip}}]"]
"""Terms and values that are logged, which samples are read and how they are augmented, and views of the evaluated ones.
"""


def run_drill(folder: Path, *words: str, warm: bool = True) -> subprocess.CompletedProcess[str]:
    """`drumbeat drill` of the small experiment, which takes some 360 steps of 5 ms here."""
    torch.save({"state_dict": {f"module.body.{name}": value for name, value in Net().backbone.state_dict().items()}},
               folder / "start.pth")
    command = [sys.executable, "-m", "drumbeat", "drill", str(write_config(folder)), "phases.head.epochs=80",
               "checkpoints.every_steps=30", "evaluation.batch_size=30", "--procs", "2", *RECIPE, *MARKS,
               *SAMPLES, *words]
    return (run_python if warm else subprocess.run)(command, cwd=folder, capture_output=True, text=True,
                                                    env=os.environ | {"COLUMNS": "80"})


@pytest.mark.parametrize(("count", "seed", "words"), [("9", "1", []), ("3", None, COMPILED)],
                         ids=["every type", "any three"])
def test_nothing_is_lost(tmp_path: Path, count: str, seed: str | None, words: list[str]) -> None:
    seed = seed or str(random.randrange(10**6))
    exact = ["virtual_ranks=2"] if count == "3" else []  # then all bits must be equal after a change of ranks as well
    done = run_drill(tmp_path, "--faults", count, "--seed", seed, "data.workers=1", *words, *exact, warm=count == "3")
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}\n{done.stderr}"
    lines = done.stdout.splitlines()
    assert lines[0] == f"drill      seed {seed}"
    assert f"faults         {count} of {count} injected; 2 of 2 changes of the number of ranks\n" in done.stdout
    assert lines[-1] == "nothing lost: the same weights bit for bit, the same samples, each step once in the curves"
    assert max(len(line) for line in lines[:-1]) <= 80
    runs = sorted((tmp_path / "runs" / "tiny-drill").glob("2*"))
    assert len(runs) == 3
    assert [Status.require(run / "status.json").state for run in runs] == ["finished"] * 3
    for run in runs:
        assert [end.reason for end in Result.require(run / "result.json").ended] == ["patience", "patience"]
    assert not any(processes_of(View.read(RunDir(run))) for run in runs)


@pytest.mark.parametrize("user", ["root", "another"])
def test_a_full_disk_is_a_full_file_system_or_it_says_what_it_was(tmp_path: Path, user: str) -> None:
    """A user who may not mount one gets a limit on the writer's files."""
    if os.geteuid():
        pytest.skip("only root may mount file systems")
    program = tmp_path / "drill.py"
    program.write_text("import sys\nfrom drumbeat.launch.drill import full_disk\n"
                       + "full_disk.own_mounts = lambda: None\n" * (user == "another")
                       + "from drumbeat.launch.commands.main import main\nsys.exit(main(sys.argv[1:]))\n")
    done = subprocess.run([sys.executable, str(program), "drill", str(write_config(tmp_path)), "phases.head.epochs=40",
                           "checkpoints.every_steps=30", "evaluation.batch_size=30", "--procs", "2", "--faults", "1",
                           "--only", "disk"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    run = sorted((tmp_path / "runs" / "tiny-drill").glob("2*"))[1]
    log = (run / "attempts" / "000" / "rank0.log").read_text()
    limited = "a limit on the writer's files took the place" in " ".join(done.stdout.split())
    assert limited is (user == "another"), done.stdout
    assert "paused     the checkpoint cannot be written: " in log


def test_a_fault_that_cannot_be_injected_is_not_a_success(tmp_path: Path) -> None:
    """There is no loader worker to kill."""
    done = run_drill(tmp_path, "--faults", "1", "--only", "loader", "data.workers=0")
    assert done.returncode == 3, f"{done.stdout}\n{done.stderr}"
    assert "SIGKILL to a loader worker      not injected: " in done.stdout
    assert "faults         0 of 1 injected; 2 of 2 changes of the number of ranks\n" in done.stdout
    end = done.stdout.partition("NOT ALL PROVEN")[2]
    assert end.startswith(": nothing was lost, but not all faults were injected\nproven         stop, resume on 1 rank")
    assert "\nnot proven     SIGKILL to a loader worker: " in end
    assert "nothing lost:" not in done.stdout


def test_a_difference_is_reported(tmp_path: Path) -> None:
    """Of two runs that differ in the seed, compared as the drill does it."""
    from drumbeat.launch.drill.drill import _differences
    from tests.tiny import drumbeat, latest

    config = str(write_config(tmp_path))
    drumbeat(tmp_path, config, "--debug", "phases.head.epochs=0.5", "phases.finetune.epochs=0.5")
    first = latest(tmp_path)
    drumbeat(tmp_path, config, "--debug", "phases.head.epochs=0.5", "phases.finetune.epochs=0.5", "seed=7")
    second = latest(tmp_path)
    assert _differences(first, first, exact=True) == []
    differences = _differences(second, first, exact=True)
    assert any("weights_sha256" in line for line in differences)
    assert any("curve train/loss: different values" in line for line in differences)
    replace(Result.require(second.result), steps=3).write(second.result)
    assert any("3 steps and" in line for line in _differences(second, first, exact=False))


def test_a_config_that_cannot_start_is_one_screen(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "drumbeat", "drill", str(write_config(tmp_path)), "--procs", "99"],
                          cwd=tmp_path, capture_output=True, text=True, check=False, env=None)
    assert done.returncode == 2
    assert "batch_size 12 is smaller than the world size, 99" in done.stderr
    assert not (tmp_path / "runs").exists()
    assert str(ROOT) not in done.stderr

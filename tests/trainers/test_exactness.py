"""A run that was killed and resumed computes what it would have computed: weights, buffers and metrics, bit for bit.

With three or more ranks this holds only because `PhaseRunner.start` runs one forward and backward pass, which it
discards, before it loads the state. All ranks have the buffers of rank 0, which are broadcast and never averaged.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from drumbeat.configs.load import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_path, damage
from drumbeat.configs.run.records import Result, Status, Verdict
from tests.processes import kill_all, wait_for_file
from tests.tiny import drumbeat, latest, write_config

pytestmark = pytest.mark.slow


def finished(folder: Path) -> Result:
    """The result of the newest run, which has finished."""
    assert Status.require(latest(folder).status).state == "finished"
    return Result.require(latest(folder).result)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_ranks_killed_in_both_phases_change_nothing(tmp_path: Path, ranks: int) -> None:
    """SIGKILL to the last rank in the middle of an epoch of each phase; the launcher restarts in place, twice."""
    (straight := tmp_path / "straight").mkdir()
    (killed := tmp_path / "killed").mkdir()
    config = write_config(tmp_path)
    drumbeat(straight, str(config), "--procs", str(ranks))
    drumbeat(killed, str(config), "--procs", str(ranks), "task._target_=tests.tiny.Fuse", f"task.folder={killed}",
             "task.at=[8,20]", f"task.rank={ranks - 1}")
    assert len(list(killed.glob("blown-*"))) == 2
    assert len(list(latest(killed).attempts.iterdir())) == 3
    assert finished(killed) == finished(straight)


RECIPES = [
    "data.sampling={_target_: drumbeat.data.Repeated, times: 3}",
    "data.mix={_target_: drumbeat.data.RandomMix, p: [0.4, 0.4], of: "
    "[{_target_: drumbeat.data.Mixup}, {_target_: drumbeat.data.CutMix}]}",
    "data.transforms.train=[{_target_: torchvision.transforms.v2.TrivialAugmentWide}, "
    "{_target_: torchvision.transforms.v2.RandomErasing, p: 0.5}]",
    "phases.finetune.transforms=[{_target_: torchvision.transforms.v2.RandAugment}, "
    "{_target_: torchvision.transforms.v2.AugMix}]",
    "evaluation.views=[{_target_: torchvision.transforms.v2.functional.horizontal_flip}]",
    "task.loss={_target_: torch.nn.CrossEntropyLoss, label_smoothing: 0.1}",
]
"""Changes of the small experiment: what its losses, its samples and its evaluations may be."""


def test_recipes_are_exact_after_a_kill(tmp_path: Path) -> None:
    """SIGKILL to rank 1 in the second phase; the run also passes the checks before it is started."""
    (straight := tmp_path / "straight").mkdir()
    (killed := tmp_path / "killed").mkdir()
    config = write_config(tmp_path)
    drumbeat(straight, str(config), *RECIPES, "task._target_=tests.trainers.tasks.test_logged.Terms", "--procs", "2",
             preflight=True)
    drumbeat(killed, str(config), *RECIPES, "task._target_=tests.trainers.tasks.test_logged.KilledTerms",
             f"task.folder={killed}", "task.at=[30]", "task.rank=1", "--procs", "2")
    assert len(list(latest(killed).attempts.iterdir())) == 2
    assert finished(killed) == finished(straight)
    found, expected = (EventAccumulator(str(latest(folder).tensorboard)).Reload() for folder in (killed, straight))
    for name in ("train/penalty", "train/largest", "validation/penalty"):
        assert [(one.step, one.value) for one in found.Scalars(name)] == [
            (one.step, one.value) for one in expected.Scalars(name)]


@pytest.mark.parametrize("losses", [13, 70], ids=["head", "finetune"])
def test_everything_killed_and_resumed_changes_nothing(tmp_path: Path, undisturbed: RunDir, losses: int) -> None:
    """SIGKILL to launcher, agent and ranks at once in the middle of an epoch, then --resume."""
    killed, config = tmp_path, write_config(tmp_path)
    command = [sys.executable, str(ROOT / "launch" / "run.py"), str(config), "--procs", "2",
               "task._target_=tests.tiny.Fuse", f"task.folder={killed}", f"task.at=[{losses}]", "task.how=hold"]
    process = subprocess.Popen(command, cwd=killed, stdout=subprocess.DEVNULL)
    wait_for_file(killed / "blown-0", process)
    kill_all(latest(killed))
    process.wait()
    assert Status.require(latest(killed).status).state == "failed"
    drumbeat(killed, "--resume", latest(killed).id, warm=False)
    assert finished(killed) == Result.require(undisturbed.result)


def test_debug_equals_one_rank_and_resumes(tmp_path: Path) -> None:
    """--debug computes what one rank under torchrun computes, also when it resumes a killed run."""
    (debug := tmp_path / "debug").mkdir()
    (launched := tmp_path / "launched").mkdir()
    config = write_config(tmp_path)
    drumbeat(debug, str(config), "--debug", "task._target_=tests.tiny.Fuse", f"task.folder={debug}", "task.at=[30]",
             expect=-signal.SIGKILL)
    drumbeat(debug, "--debug", "--resume", "tiny")
    drumbeat(launched, str(config), "--procs", "1")
    assert finished(debug) == finished(launched)


def corrupt(run: RunDir, step: int) -> None:
    """Flips a bit of the weights saved at a step."""
    file = checkpoint_path(run, step) / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def test_corrupted_best_weights_that_a_phase_starts_from_are_trained_again(tmp_path: Path) -> None:
    """The first evaluation, at step 9, is the best; its weights are corrupted at about step 15, two steps before the
    next phase starts from them."""
    words = [str(write_config(tmp_path)), "--procs", "2", "evaluation.monitor=loss", "evaluation.mode=max",
             "checkpoints.keep=9"]
    drumbeat(tmp_path, *words)
    straight = finished(tmp_path)
    command = [sys.executable, str(ROOT / "launch" / "run.py"), *words, "--no-preflight",
               "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}", "task.at=[30]", "task.how=wait"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_for_file(tmp_path / "blown-0", process)
    run = latest(tmp_path)
    corrupt(run, 9)
    (tmp_path / "go").touch()
    assert process.wait() == 0
    message = Verdict.require(run.attempt(0).verdict).message
    assert "the best weights, of step 9, are corrupted (the digest of model.safetensors differs)" in message
    assert "resuming from step-00000006" in run.attempt(1).log(0).read_text()
    assert finished(tmp_path) == straight


@pytest.mark.parametrize("which", ["last", "best"])
def test_a_finished_run_with_corrupted_weights_is_resumed(tmp_path: Path, undisturbed: RunDir, which: str) -> None:
    """They are trained again, from the checkpoint before them; a finished run with intact weights is not resumed."""
    straight = Result.require(undisturbed.result)
    drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "checkpoints.keep=99")
    run = latest(tmp_path)
    assert "is finished" in drumbeat(tmp_path, "--resume", run.id, expect=2).stderr
    run.checkpoints.rename(tmp_path / "away")
    assert "is finished" in drumbeat(tmp_path, "--resume", run.id, expect=2).stderr, "deleted is not corrupted"
    (tmp_path / "away").rename(run.checkpoints)
    corrupt(run, straight.steps if which == "last" else straight.best["step"])
    drumbeat(tmp_path, "--resume", run.id)
    assert finished(tmp_path) == straight
    assert not any(damage(checkpoint_path(run, step)) for step in (straight.steps, straight.best["step"]))
    assert "is finished" in drumbeat(tmp_path, "--resume", run.id, expect=2).stderr

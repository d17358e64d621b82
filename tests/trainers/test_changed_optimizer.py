"""A run resumes with another learning rate, schedule or optimizer argument: what has changed is the config's, and the
rest is the checkpoint's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor

from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.loop import Training
from tests.trainers.in_process import Witness, attempted, new_run

STEP = "phases.head.scheduler={_target_: torch.optim.lr_scheduler.StepLR, step_size: 2, gamma: 0.1}"
ONE_CYCLE = "phases.head.scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.2, total_steps: %d}"
SEQUENTIAL = """phases.head.scheduler={_target_: tests.trainers.test_changed_optimizer.warmup, total: %d}"""
PLATEAU = ("phases.head.scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, mode: max, patience: %d,"
           " factor: 0.5}")
COSINE = "phases.head.scheduler={_target_: torch.optim.lr_scheduler.CosineAnnealingLR, T_max: '${phase.steps}'}"
GROUP = "phases.head={groups: {weight: {match: [weight], optimizer: {lr: 0.2}}}, layers: [weight, bias], scheduler: {}}"
ADAMW = "phases.head.optimizer={_target_: tests.trainers.test_changed_optimizer.Noted, lr: 0.1}"
ONE_PHASE = ["phases.all=null", "phases.head.epochs=4"]
STOP, STEPS = 4, 12


class Noted(torch.optim.AdamW):
    """AdamW that notes its learning rates where `Witness` does."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        if not isinstance(self.param_groups[0]["params"][0], FakeTensor):
            Witness.rates.append(self.param_groups[0]["lr"])
        super().step(closure)


def warmup(optimizer: torch.optim.Optimizer, total: int) -> torch.optim.lr_scheduler.SequentialLR:
    """A linear warmup of 3 steps, then a cosine to the end."""
    parts = [torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
             torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total - 3)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.optim.lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])


def rescued(folder: Path, before: list[str], after: list[str]) -> tuple[Training, list[float]]:
    """A run that was stopped and resumed with changes; the learning rates of the steps after the stop."""
    run = new_run(folder)
    attempted(run, STOP, [*ONE_PHASE, *before])
    Witness.rates.clear()
    training, _ = attempted(run, None, [*ONE_PHASE, *before, *after])
    return training, [*Witness.rates]


def straight(folder: Path, changes: list[str]) -> tuple[Training, list[float]]:
    """A run with these values from its beginning; the learning rates of the steps after `STOP`."""
    Witness.rates.clear()
    training, _ = attempted(new_run(folder), None, [*ONE_PHASE, *changes])
    return training, Witness.rates[STOP:]


@pytest.mark.parametrize(("before", "after"), [
    ([STEP], ["phases.head.optimizer.lr=0.02"]),
    ([STEP], ["phases.head.scheduler.gamma=0.7"]),
    ([], [STEP]),
    ([STEP], ["phases.head.scheduler={}"]),
    ([], ["phases.head.scheduler={}", "phases.head.optimizer.lr=0.03"]),
    ([ADAMW, ONE_CYCLE % 20], [ONE_CYCLE % 12]),
    ([ADAMW, ONE_CYCLE % STOP], [ONE_CYCLE % 12]),
    ([ADAMW, ONE_CYCLE % 12], ["phases.head.scheduler.max_lr=0.05"]),
    ([SEQUENTIAL % 20], [SEQUENTIAL % 12]),
    ([SEQUENTIAL % 12], ["phases.head.optimizer.lr=0.03"]),
    ([SEQUENTIAL % 12], [STEP]),
    ([STEP, "phases.head.scheduler_every=epoch"], ["phases.head.scheduler_every=step"]),
    ([STEP], ["phases.head.scheduler_every=epoch"]),
    ([COSINE], ["phases.head.epochs=6"]),
    ([COSINE], ["phases.head.optimizer.lr=0.03", "phases.head.epochs=5"]),
    ([GROUP], ["phases.head.groups.weight.optimizer.lr=0.02"]),
    ([GROUP], ["phases.head.optimizer.lr=0.07"]),
    ([GROUP], ["phases.head.layer_decay=0.5"]),
])
def test_the_learning_rate_is_that_of_the_new_config(tmp_path: Path, before: list[str], after: list[str]) -> None:
    """As if it had had it from the beginning of the phase."""
    _, rates = rescued(tmp_path / "rescued", before, after)
    assert rates == straight(tmp_path / "straight", [*before, *after])[1]
    assert len(rates) >= STEPS - STOP


def test_the_schedule_that_is_not_changed_continues_as_saved(tmp_path: Path) -> None:
    """And only the weight decay is another one."""
    training, rates = rescued(tmp_path / "a", [STEP], ["phases.head.optimizer.weight_decay=0.5"])
    assert rates == straight(tmp_path / "b", [STEP])[1]
    ((key, old, new, step),) = [(one.key, one.old, one.new, one.step) for one in training.progress.changes]
    assert (key, old, new, step) == ("phases.head.optimizer.weight_decay", None, 0.5, STOP)


def test_moments_are_kept(tmp_path: Path) -> None:
    """Adam's second moments after the change are those before it, decayed: none of them begins again at 0."""
    run = new_run(tmp_path / "run")
    attempted(run, STOP, [*ONE_PHASE, ADAMW])
    before = torch_state(run.checkpoints / f"step-{STOP:08d}")
    stopped, _ = attempted(run, STOP + 2, [*ONE_PHASE, ADAMW, "phases.head.optimizer.lr=0"])
    after = torch_state(run.checkpoints / f"step-{STOP + 2:08d}")
    assert stopped.progress.step == STOP + 2
    assert float(after["weight/step"]) == STOP + 2
    assert (after["weight/exp_avg_sq"] >= 0.998 * before["weight/exp_avg_sq"] - 1e-9).all()
    assert torch.equal(*(one["weight"] for one in (weights(run, STOP), weights(run, STOP + 2))))  # a rate of 0


def torch_state(checkpoint: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(checkpoint / "optimizer.safetensors")


def weights(run: Any, step: int) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run.checkpoints / f"step-{step:08d}" / "model.safetensors")


def test_a_plateau_keeps_its_metrics_and_takes_the_new_rate(tmp_path: Path) -> None:
    """The metric is always 0.5: after the first epoch no epoch is better, and the rate is halved."""
    _, rates = rescued(tmp_path / "a", [PLATEAU % 0], ["phases.head.optimizer.lr=0.08"])
    assert rates == [0.08] * 2 + [0.04] * 3 + [0.02] * 3
    _, rates = rescued(tmp_path / "b", [PLATEAU % 0], [PLATEAU % 1])
    assert rates == [0.1] * 5 + [0.05] * 3


def used(training: Training) -> tuple[int, int]:
    """How many samples the run has used, and the digest of its whole ledger."""
    ledger = training.progress.ledger
    return sum(span.samples for span in ledger), sum(int(span.digest, 16) for span in ledger) % 2**64


def test_two_resumes_with_the_same_changes_are_equal_to_the_bit(tmp_path: Path) -> None:
    changes = ["phases.head.optimizer.lr=0.02", "batch_size=3", "phases.head.clip_norm=0.5"]
    one, _ = rescued(tmp_path / "one", [STEP], changes)
    other, _ = rescued(tmp_path / "other", [STEP], changes)
    assert weights_sha256(one.model.state_dict()) == weights_sha256(other.model.state_dict())
    assert used(one) == used(other)


def test_a_restart_after_the_change_continues_it(tmp_path: Path) -> None:
    """With the state of the new schedule, and without another change."""
    run, changes = new_run(tmp_path / "a"), [*ONE_PHASE, STEP, "phases.head.optimizer.lr=0.02"]
    attempted(run, STOP, [*ONE_PHASE, STEP])
    attempted(run, STOP + 2, changes)
    again, _ = attempted(run, None, changes)
    straight, _ = rescued(tmp_path / "b", [STEP], changes[2:])
    assert weights_sha256(again.model.state_dict()) == weights_sha256(straight.model.state_dict())
    assert [change.step for change in again.progress.changes] == [STOP]


def test_an_argument_that_the_state_does_not_fit_is_an_error(tmp_path: Path) -> None:
    """The preflight check finds it first."""
    with pytest.raises(KeyError, match="max_exp_avg_sq"):
        rescued(tmp_path / "run", [ADAMW], ["phases.head.optimizer.amsgrad=true"])


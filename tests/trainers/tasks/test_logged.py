"""Terms of a loss, values and images that a task logs: the same curves at any number of ranks, and no other weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.tasks import Classification, log, log_image
from drumbeat.trainers.tasks.logged import Logged, logging, means, summed_and_logged
from drumbeat.trainers.tasks.losses import summed
from drumbeat.trainers.worker import build
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.tiny import Fuse
from tests.trainers.in_process import ALONE

CONFIG = """
name: rows
batch_size: 4
micro_batch_size: 1
precision: fp32
model: {_target_: torch.nn.Linear, in_features: 4, out_features: 3}
task:
  _target_: TASK
  loss: {_target_: torch.nn.CrossEntropyLoss, weight: {_target_: torch.tensor, data: [1.0, 2.0, 3.0]}}
data:
  train: {_target_: tests.trainers.test_loop.Rows, n: 12}
  validation: {_target_: tests.trainers.test_loop.Rows, n: 6}
  workers: 0
phases:
  only: {epochs: 2, optimizer: {_target_: torch.optim.SGD, lr: 0.1}}
evaluation: {batch_size: 4}
tracking: {every_steps: 2, images: 2}
launch: {gpus: 0, cpus_per_rank: 1}
"""
OWN = "tests.trainers.tasks.test_logged.Terms"


class Terms(Classification):
    """Cross-entropy with weights for classes, and a penalty; rank 1 alone logs a name more."""

    metric_names = (*Classification.metric_names, "penalty")

    def losses(self, outputs: Any, targets: Tensor) -> Mapping[str, Tensor]:  # type: ignore[override]
        losses = super().losses(outputs, targets)
        log("largest", outputs.amax(1))
        log("one", 1.0)
        log_image("picture", lambda: torch.zeros(3, 8, 8, dtype=torch.uint8))
        if 2 in targets:
            log("twos", lambda: (targets == 2).sum())
        return {"classes": losses, "penalty": outputs.square().sum(1) / 100}


class KilledTerms(Terms, Fuse):
    """The same, with an injected fault."""


class Plain(Classification):
    """The same loss, without a log."""

    def losses(self, outputs: Any, targets: Tensor) -> Tensor:
        return summed({"classes": super().losses(outputs, targets), "penalty": outputs.square().sum(1) / 100})


def trained(run: RunDir, task: str, world: World = ALONE) -> str:
    """The run's digest, or '' on another rank than 0."""
    file = run.path / f"rows{world.rank}.yaml"
    file.write_text(CONFIG.replace("TASK", task))
    run.config.touch()
    config = load(file, []).config
    training = build(run, run.attempt(0), config, build_sets(config), world, threads=1, debug=True)
    training.run()
    training.checkpoints.close()
    training.saver.tracker.close()
    training.watchdog.close()
    return weights_sha256(training.model.state_dict())


def started(folder: Path) -> RunDir:
    run = RunDir(folder)
    run.claim_attempt()
    return run


def curves(run: RunDir) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run.tensorboard)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]
            if not name.startswith("speed")}


def test_terms_and_values_are_curves_and_change_no_weight(tmp_path: Path) -> None:
    runs = [started(tmp_path / name) for name in ("terms", "plain")]
    assert trained(runs[0], OWN) == trained(runs[1], OWN.replace("Terms", "Plain"))
    found, plain = map(curves, runs)
    assert {name for name in found if name not in plain} == {
        "train/classes", "train/penalty", "train/largest", "train/one", "train/twos", "validation/classes",
        "validation/penalty"}
    assert {name: values for name, values in found.items() if name in plain} == plain
    for kind in ("train", "validation"):
        for (step, loss), (at, classes), (_, penalty) in zip(*(found[f"{kind}/{name}"] for name in (
                "loss", "classes", "penalty")), strict=True):
            assert step == at
            assert loss == pytest.approx(classes + penalty, rel=1e-6)
            assert penalty > 0
    assert found["train/one"] == [(2, 1.0), (4, 1.0), (6, 1.0)]
    images = EventAccumulator(str(runs[0].tensorboard)).Reload().Images("train/picture")
    assert [image.step for image in images] == [2, 4]  # the first points of two epochs of three steps


def rank(world: World, folder: str) -> None:
    trained(RunDir(Path(folder)), OWN, world)


@pytest.mark.slow
def test_two_ranks_have_the_same_curves(tmp_path: Path) -> None:
    """Micro-batches of one sample; not all ranks log each name in each step."""
    one, two = started(tmp_path / "one"), started(tmp_path / "two")
    trained(one, OWN)
    on_ranks(2, rank, two.path)
    alone, both = curves(one), curves(two)
    assert alone.keys() == both.keys()
    for name, points in alone.items():
        assert [step for step, _ in both[name]] == [step for step, _ in points]
        assert [value for _, value in both[name]] == pytest.approx([value for _, value in points], rel=1e-5), name


def test_nothing_is_kept_but_in_the_step_of_a_point() -> None:
    def never() -> float:
        raise AssertionError

    log("a", never)
    log_image("b", never)  # type: ignore[arg-type]
    kept = Logged()
    with logging(kept):
        log("a", torch.tensor([1.0, 3.0], requires_grad=True))
        log("a", 8)
        log("c", lambda: torch.tensor(5))
        with logging(None):
            log("d", 1.0)
        assert summed_and_logged({"x": torch.ones(2), "y": torch.ones(2)}, 0.25).tolist() == [2.0, 2.0]
    log("a", never)
    assert means([kept.parts[0], {"a": torch.tensor([8.0, 1.0])}, {}]) == {"a": 5.0, "c": 5.0, "x": 0.5, "y": 0.5}
    assert not kept.parts[0]["a"].requires_grad


def test_terms_of_different_shapes_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"terms of a loss have different shapes: a \[4\], b \[\]"):
        summed({"a": torch.zeros(4), "b": torch.zeros(())})


def test_a_tensor_without_values_is_no_value() -> None:
    """As of a micro-batch without such a sample: its mean is not 0."""
    with logging(found := Logged()):
        log("never", torch.zeros(0))
        for values in (torch.zeros(0), torch.tensor([1.0, 3.0])):
            log("some", values)
    assert means([found.parts[0]]) == {"some": 2.0}

"""The preflight check: facts and faults before a run is submitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands.preflight import FP16_ON_CPU, preflight
from tests.tiny import Net, Pictures, write_config


def frozen_net() -> nn.Module:
    """A model that a user has frozen as a whole."""
    return Net().requires_grad_(False)


class Doubles(Pictures):
    """Images as numpy computes them, in float64."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture, label = super().__getitem__(index)
        return picture.double(), label


class OneClass(Pictures):
    """A folder of classes whose root is one level too high has one class."""

    classes = ("bottom",)  # type: ignore[assignment]

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return super().__getitem__(index)[0], 0


def test_facts(tmp_path: Path) -> None:
    facts: dict[str, Any] = preflight(load(write_config(tmp_path)).config)
    assert facts["samples"] == {"train": 100, "validation": 30, "test": 17}
    assert facts["steps"] == {"head": 17, "finetune": 25}
    assert facts["classes"] == ["bottom", "top"]
    assert facts["parameters"] == 8 * 9 + 8 + 16 + 2 * 512 + 512 * 32 + 32 + 64 + 66


@pytest.mark.parametrize(("change", "message"), [
    ("phases.head.freeze=[backbon]", "the model has no module 'backbon'"),
    ("phases.head.freeze=[backbone,head]", "the phase freezes all parameters"),
    ("model={_target_: tests.trainers.commands.test_preflight.frozen_net}",
     "the model has nothing to train: no parameter has requires_grad"),
    ("data={train: {_target_: tests.trainers.commands.test_preflight.Doubles, n: 20}, transforms: {batch: []}}",
     "The inputs are float64, and the model's weights are not: return float32"),
    ("data={train: {_target_: tests.trainers.commands.test_preflight.OneClass, n: 20}}",
     "the training set has one class: bottom"),
    ("reference={curves: {head: {validation/acuracy: [0.5]}}}", "Did you mean 'validation/accuracy'?"),
    ("evaluation.monitor=accuracyy", "there is no metric 'accuracyy'"),
    ("data.validation={}", "there are no best weights without a validation set"),
    ("data.train.n=0", "data.train is empty"),
    ("phases.head.optimizer.rate=1", "torch.optim.Adam has no argument 'rate'"),
    ("phases.head.optimizer={_target_: torch.optim.LBFGS}", "LBFGS needs several evaluations"),
    ("task._target_=drumbeat.trainers.tasks.Clasification", "Did you mean 'Classification'?"),
    ("data.transforms.batch=[{_target_: drumbeat.data.Normalize, mean: [0], std: [0]}]", "std must be positive"),
])
def test_faults(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), [change]).config)
    assert message in " ".join(str(caught.value).split())


def test_all_faults_at_once(tmp_path: Path) -> None:
    changes = ["model._target_=tests.tiny.Nett", "phases.head.optimizer.rate=1", "data.train.m=3", "data.test.m=3",
               "data.transforms.train=[{_target_: torch.nn.Liner}]"]
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), changes).config)
    assert [fault.where for fault in caught.value.faults] == [
        "data.train.m", "data.test.m", "data.transforms.train[0]._target_", "model._target_"]


GONE = ["data.root={0}", "data.train={{_target_: drumbeat.data.ImageFolder, root: '${{data.root}}/train'}}",
        "data.validation={{_target_: drumbeat.data.ImageFolder, root: '${{data.root}}/val'}}",
        "data.download_hint=Draw some."]


def test_a_folder_of_data_that_is_not_there_is_one_fault(tmp_path: Path) -> None:
    changes = [change.format(tmp_path / "no") for change in GONE]
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), changes).config)
    (fault,) = caught.value.faults
    assert fault.what == f"the folder of the data does not exist: {tmp_path / 'no'}"
    assert (fault.where, fault.remedy) == ("data.root", "Draw some.\nIf it is elsewhere: data.root=DIR")


def test_what_several_sets_have_in_common_is_one_fault_that_names_them(tmp_path: Path) -> None:
    missing = f"{{_target_: drumbeat.data.ImageFolder, root: {tmp_path}/no}}"
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), [f"data.{name}={missing}" for name in ("train", "test")]).config)
    (fault,) = caught.value.faults
    assert fault.what == f"the image folder {tmp_path}/no does not exist (data.train, data.test)"
    assert fault.where == "data.train"


@pytest.mark.parametrize("key", ["patience", "target"])
def test_a_phase_that_ends_by_its_metric_needs_one(tmp_path: Path, key: str) -> None:
    changes = ["data.validation={}", "phases.finetune.start_from=last", f"phases.head.{key}=3"]
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), changes).config)
    assert [(fault.what, fault.where, fault.given) for fault in caught.value.faults] == [
        ("a phase cannot end by its metric without a validation set", f"phases.head.{key}", f"{key}: 3")]


def test_a_budget_that_ends_the_run_before_a_phase_is_told(tmp_path: Path) -> None:
    facts = preflight(load(write_config(tmp_path), ["budget.steps=5"]).config)
    assert facts["steps"] == {"head": 5}
    assert "the budget of 5 steps ends the run before phase finetune" in facts["notes"]


def test_a_schedule_that_watches_the_validation_metric_needs_one(tmp_path: Path) -> None:
    changes = ["data.validation={}", "phases.finetune.start_from=last",
               "phases.finetune.scheduler={_target_: torch.optim.lr_scheduler.ReduceLROnPlateau}"]
    with pytest.raises(PreflightError, match="ReduceLROnPlateau needs a validation metric"):
        preflight(load(write_config(tmp_path), changes).config)


def test_a_schedule_that_watches_for_the_opposite_is_refused(tmp_path: Path) -> None:
    """It would lower the learning rate with each improvement of the accuracy."""
    plateau = "phases.finetune.scheduler={{_target_: torch.optim.lr_scheduler.ReduceLROnPlateau, mode: {}}}"
    changes = ["evaluation.monitor=accuracy", "evaluation.mode=max"]
    with pytest.raises(PreflightError) as caught:
        preflight(load(write_config(tmp_path), [*changes, plateau.format("min")]).config)
    (fault,) = caught.value.faults
    assert fault.what == "ReduceLROnPlateau would lower the learning rate while accuracy improves"
    assert fault.remedy == "Give it mode: max."
    preflight(load(write_config(tmp_path), [*changes, plateau.format("max")]).config)


def test_batch_norm_gets_no_share_of_one_sample(tmp_path: Path) -> None:
    config = load(write_config(tmp_path), ["micro_batch_size=null"]).config
    preflight(config, world_size=5)
    with pytest.raises(PreflightError, match="BatchNorm1d cannot be trained on one sample") as caught:
        preflight(config, world_size=7)
    assert [fault.where for fault in caught.value.faults] == ["batch_size", "phases.finetune.batch_size"]


def test_a_model_that_reads_values_while_it_is_built(tmp_path: Path) -> None:
    config = load(write_config(tmp_path), ["model._target_=tests.trainers.commands.test_preflight.stepped"]).config
    assert preflight(config)["parameters"] > 0


def stepped() -> Net:
    """A network whose width is computed by torch: on the meta device there are no values to read."""
    return Net(width=int(torch.linspace(4, 8, 3)[-1].item()))


def test_a_trial_has_no_notes_about_its_length_and_fp16_has_one_on_the_cpu(tmp_path: Path) -> None:
    long = ["phases.finetune.scheduler.T_max=1000"]
    (note,) = preflight(load(write_config(tmp_path), long).config)["notes"]
    assert "the cosine is at its lowest after 1,000 steps" in note
    assert preflight(load(write_config(tmp_path), [*long, "limit_batches=3"]).config)["notes"] == []
    fp16 = load(write_config(tmp_path), ["precision=fp16"]).config
    assert preflight(fp16)["notes"] == [FP16_ON_CPU] and preflight(fp16, device="cuda")["notes"] == []

"""Arguments of a model that only the data knows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.build import build_sets, place_model
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.facts import facts_of, with_facts
from drumbeat.trainers.sample_counts import check_unchanged, describe_training_set
from tests.tiny import Pictures, write_config

MODEL = "model={_target_: tests.trainers.test_facts.headed, classes: from_data}"


def headed(*, classes: int) -> torch.nn.Module:
    """A network with an output for each class."""
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, classes))


class Three(Pictures):
    """A set of as many samples, which tells of three classes."""

    classes = ("bottom", "top", "side")  # type: ignore[assignment]


def config_of(tmp_path: Path, *changes: str):  # type: ignore[no-untyped-def]
    whole = "phases={all: {epochs: 1, optimizer: {_target_: torch.optim.Adam}}}"
    return load(write_config(tmp_path), [MODEL, "phases.head=null", "phases.finetune=null", whole, *changes]).config


def test_they_are_filled_in_before_the_model_is_built(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    assert preflight(config)["parameters"] == 2 * 64 + 65 * 2
    filled = with_facts(config, facts_of(build_sets(config).train))
    assert place_model(filled, torch.device("cpu"))[2].out_features == 2
    assert config.model["classes"] == "from_data"


def test_other_libraries_names_for_the_number_of_classes(tmp_path: Path) -> None:
    config = config_of(tmp_path, "model={_target_: builtins.dict, num_classes: from_data, num_labels: from_data}")
    assert with_facts(config, {"classes": 3}).model == config.model | {"num_classes": 3, "num_labels": 3}
    assert with_facts(config, {"classes": 3, "num_labels": 1}).model["num_labels"] == 1


def test_what_the_data_does_not_tell_is_a_fault_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(PreflightError) as caught:
        preflight(config_of(tmp_path, "model.clases=from_data"))
    (fault,) = caught.value.faults
    assert (fault.where, fault.remedy) == ("model.clases", "Did you mean 'classes'? Or write the value itself.")


def test_where_the_data_is_lost_nothing_is_said_of_the_model(tmp_path: Path) -> None:
    with pytest.raises(PreflightError) as caught:
        preflight(config_of(tmp_path, "data.train.m=3"))
    assert [fault.where for fault in caught.value.faults] == ["data.train.m"]


def test_a_checkpoint_keeps_them_and_other_classes_are_refused() -> None:
    before = describe_training_set(Pictures(n=100))
    assert before == {"samples": 100, "classes": ["bottom", "top"], "facts": {"classes": 2}}
    assert check_unchanged(before, describe_training_set(Pictures(n=100)), allow_change=False) == ""
    with pytest.raises(PreflightError) as caught:
        check_unchanged(before, describe_training_set(Three(n=100)), allow_change=True)
    assert str(caught.value) == (
        "error: the classes of the training set have changed since the checkpoint\n"
        "  where  data.train\n"
        "  given  bottom, top at the checkpoint, bottom, top, side now\n"
        "  fix    Restore the set, or start a new run.")


def test_one_output_is_enough_for_two_classes(tmp_path: Path) -> None:
    preflight(config_of(tmp_path, "model.classes=1"))
    with pytest.raises(PreflightError, match="the model has 2 classes, the data has 3"):
        preflight(config_of(tmp_path, "model.classes=2",
                            "data.train={_target_: tests.trainers.test_facts.Three, n: 9}"))

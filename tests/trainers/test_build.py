"""From the config's sections to objects."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch.utils.data import IterableDataset

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config, load
from drumbeat.trainers.build import Sets, build_sets, build_task, use_caches
from tests.tiny import write_config


def test_a_cache_folder_with_a_variable_that_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named `$TMPDIR` would be made in the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TMPDIR", raising=False)
    config = load(write_config(tmp_path), ["data.cache=$TMPDIR/cache"]).config
    with pytest.raises(PreflightError, match=f"the variable TMPDIR is not set on {socket.gethostname()}"):
        use_caches(config, build_sets(config), processes=0)
    assert not list(tmp_path.glob("$*"))


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))

    def __len__(self) -> int:
        return 3


class Endless:
    def __getitem__(self, index: int) -> int:
        return index


def pad(samples: list[Any], *, value: int) -> Any:
    return samples, value


class Pad:
    def __init__(self, *, value: int) -> None:
        self.value = value

    def __call__(self, samples: list[Any]) -> Any:
        return samples, self.value


def sets(**data: Any) -> Sets:
    return build_sets(build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "model": {"_target_": "x"}, "data": data,
        "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "x"}}}})]))


@pytest.mark.parametrize(("name", "what"), [
    ("Stream", "data.train can only be iterated over, and not be asked for a sample by its index"),
    ("Endless", "data.train does not know how many samples it has"),
])
def test_a_dataset_that_has_no_index_or_no_length_is_refused(name: str, what: str) -> None:
    with pytest.raises(PreflightError) as raised:
        sets(train={"_target_": f"tests.trainers.test_build.{name}"})
    fault, = raised.value.faults
    assert (fault.what, fault.where) == (what, "data.train._target_")
    assert "__len__() and __getitem__(index)" in fault.remedy


@pytest.mark.parametrize("name", ["pad", "Pad"])
def test_a_function_or_an_object_makes_batches(name: str) -> None:
    train = {"_target_": "tests.tiny.Pictures", "n": 3}
    built = sets(train=train, collate_fn={"_target_": f"tests.trainers.test_build.{name}", "value": 7})
    assert built.collate is not None
    assert built.collate([1, 2]) == ([1, 2], 7)
    assert sets(train=train).collate is None
    with pytest.raises(PreflightError, match=f"tests.trainers.test_build has no '{name}s'"):
        sets(train=train, collate_fn={"_target_": f"tests.trainers.test_build.{name}s"})


def test_a_phase_has_its_own_transforms_or_the_runs() -> None:
    resize = "torchvision.transforms.v2.Resize"
    phase = {"epochs": 1, "optimizer": {"_target_": "x"}}
    built = build_sets(build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "model": {"_target_": "x"},
        "data": {"train": {"_target_": "tests.tiny.Pictures", "n": 3}, "transforms": {
            "train": [{"_target_": resize, "size": 16}], "fuse": False}},
        "phases": {"small": {**phase, "transforms": [{"_target_": resize, "size": 4}]}, "large": phase}})]))
    assert [one.size for number in range(2) for one in built.transforms_in(number)] == [[4], [16]]
    with pytest.raises(PreflightError, match=r"where  phases.small.transforms\[0\]"):
        build_sets(build_config([Layer(origin="test", values={
            "name": "x", "batch_size": 5, "model": {"_target_": "x"}, "phases": {
                "small": {**phase, "transforms": [{"_target_": resize, "sise": 4}]}}})]))


@pytest.mark.parametrize("loss", [
    {"_target_": "torchvision.ops.sigmoid_focal_loss", "alpha": 0.25, "gamma": 2.0},
    {"_target_": "torch.nn.functional.binary_cross_entropy_with_logits",
     "pos_weight": {"_target_": "torch.tensor", "data": [1.0, 2.0, 3.0]}},
    {"_target_": "torch.nn.BCEWithLogitsLoss", "pos_weight": {"_target_": "torch.tensor", "data": [1.0, 2.0, 3.0]}},
], ids=["focal", "function", "class"])
def test_a_loss_is_a_class_or_a_function(loss: dict[str, Any]) -> None:
    config = build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 5, "model": {"_target_": "x"},
        "task": {"_target_": "drumbeat.trainers.tasks.MultiLabel", "loss": loss}})])
    task = build_task(config, None, torch.device("cpu"))
    outputs, targets = torch.randn(5, 3), torch.randint(0, 2, (5, 3)).float()
    arguments = {name: torch.tensor(value["data"]) if isinstance(value, dict) else value
                 for name, value in loss.items() if name != "_target_"}
    function = (torchvision.ops.sigmoid_focal_loss if "focal" in loss["_target_"] else
                torch.nn.functional.binary_cross_entropy_with_logits)
    assert torch.equal(task.losses(outputs, targets), function(outputs, targets, reduction="none", **arguments).mean(1))

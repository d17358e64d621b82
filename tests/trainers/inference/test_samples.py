"""What an evaluation keeps of each sample: the same after it was written and read, and nothing of a damaged file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from drumbeat.configs.run.files import DamagedError
from drumbeat.trainers.inference.samples import KeptSamples, kept_samples, read_samples, write_samples
from drumbeat.trainers.tasks import Classification, Results


class Named:
    """A set with names and, if asked for, groups."""

    def __init__(self, *, groups: bool) -> None:
        self.grouped = groups

    def names(self) -> list[str]:
        return ["a.png", "ü\n.png", "c.png"]

    def groups(self) -> list[str]:
        if not self.grouped:
            raise ValueError("no file has a PatientID")
        return ["x", "x", "y"]


RESULTS = Results(losses=torch.tensor([0.5, 2.0]), outputs=torch.tensor([[1.0, 0.0], [0.0, 1.0]]),
                  targets=torch.tensor([0, 0]), subset=torch.tensor([1, 2]))


@pytest.mark.parametrize("grouped", [False, True])
def test_they_are_read_as_they_were_written(tmp_path: Path, grouped: bool) -> None:
    kept = kept_samples(Classification(classes=["one", "two"]), RESULTS, Named(groups=grouped))
    write_samples(kept, tmp_path / "samples.safetensors")
    found = read_samples(tmp_path / "samples.safetensors")
    assert found is not None and (found.kind, found.names, found.outputs) == (
        "classification", ["ü\n.png", "c.png"], ["one", "two"])
    assert found.groups == (["x", "y"] if grouped else None)
    assert {name: array.tolist() for name, array in found.arrays.items()} == {
        name: array.tolist() for name, array in kept.arrays.items()}
    assert found.arrays["predictions"].tolist() == [0, 1]


def test_groups_may_be_an_attribute_of_numbers(tmp_path: Path) -> None:
    class Numbered:
        groups = np.array([7, 7, 8])

    write_samples(kept_samples(Classification(), RESULTS, Numbered()), tmp_path / "samples.safetensors")
    found = read_samples(tmp_path / "samples.safetensors")
    assert found is not None and found.groups == ["7", "8"]


def test_names_and_groups_may_be_paths_and_numbers(tmp_path: Path) -> None:
    """Of a set of the user's."""
    kept = KeptSamples(kind="other", names=[Path("a.png")], groups=[np.int64(7)], outputs=[],  # type: ignore[list-item]
                       arrays={"losses": np.zeros(1, dtype=np.float32)})
    write_samples(kept, tmp_path / "samples.safetensors")
    found = read_samples(tmp_path / "samples.safetensors")
    assert found is not None and (found.names, found.groups) == (["a.png"], ["7"])


def test_a_set_without_names_has_numbers() -> None:
    assert kept_samples(Classification(), RESULTS, object()).names == ["000000000001", "000000000002"]


def test_of_many_classes_no_probabilities_are_kept() -> None:
    outputs = torch.eye(30)[:4]
    results = Results(losses=torch.zeros(4), outputs=outputs, targets=torch.tensor([0, 1, 2, 29]))
    kept = kept_samples(Classification(), results, object())
    assert {*kept.arrays} == {"losses", "targets", "predictions", "in_top5"}
    assert kept.arrays["in_top5"].tolist() == [True, True, True, False]


def test_elements_are_counted_in_each_sample() -> None:
    task = Classification(loss=nn.CrossEntropyLoss(ignore_index=-1))
    outputs = torch.tensor([[[2.0, 0.0], [0.0, 2.0]], [[2.0, 2.0], [0.0, 0.0]]])  # [n, classes, elements]
    results = Results(losses=torch.ones(2), outputs=outputs, targets=torch.tensor([[0, 0], [0, -1]]),
                      weights=torch.tensor([2.0, 1.0]))
    kept = kept_samples(task, results, object())
    assert (kept.kind, kept.arrays["correct"].tolist(), kept.arrays["counted"].tolist()) == (
        "elements", [1, 1], [2, 1])


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "samples.safetensors"
    assert read_samples(file) is None
    write_samples(KeptSamples(kind="other", names=["a"], groups=None, outputs=[],
                              arrays={"losses": np.zeros(2, dtype=np.float32)}), file)
    with pytest.raises(DamagedError, match="different lengths"):
        read_samples(file)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DamagedError, match=r"samples\.safetensors"):
        read_samples(file)

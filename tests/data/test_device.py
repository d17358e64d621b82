"""Batches on their way to the device. tests/trainers/test_gpu_step.py tests the second stream of a GPU."""

from __future__ import annotations

import torch

from drumbeat.data.device import on_device, to_device
from drumbeat.data.loader import Batch

META = torch.device("meta")


class Ragged:
    """Moves its values, and keeps its lengths on the host."""

    def __init__(self, values: torch.Tensor, lengths: torch.Tensor) -> None:
        self.values, self.lengths = values, lengths

    def to(self, device: torch.device, non_blocking: bool) -> Ragged:
        assert non_blocking
        return Ragged(self.values.to(device), self.lengths)


def test_on_the_cpu_the_batches_are_the_same_objects() -> None:
    batches = [Batch(*(torch.ones(2) for _ in range(5))) for _ in range(3)]
    moved = list(on_device(iter(batches), torch.device("cpu")))
    assert all(one is other for one, other in zip(moved, batches, strict=True))


def test_tensors_are_moved_wherever_they_are_inside() -> None:
    values = {"own": torch.ones(2, dtype=torch.int64), "both": (torch.ones(3), [torch.ones(1)]), "name": "x", "n": 3}
    moved = to_device(values, META)
    assert list(moved) == ["own", "both", "name", "n"]
    assert (moved["own"].device, moved["own"].dtype, moved["own"].shape) == (META, torch.int64, (2,))
    assert (moved["both"][0].device, moved["both"][1][0].device) == (META, META)
    assert (moved["name"], moved["n"]) == ("x", 3)
    assert values["own"].device.type == "cpu"


def test_what_has_a_way_to_move_itself_does_so() -> None:
    (moved,) = to_device([Ragged(torch.ones(4), torch.tensor([1, 3]))], META)
    assert (moved.values.device, moved.lengths.device.type) == (META, "cpu")

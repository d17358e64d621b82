"""An error of a model or a loss names the sample that causes it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.data.loader import Batch, error_message
from drumbeat.trainers.blame import blame
from drumbeat.trainers.tasks import Classification
from tests.trainers.one_step import runner_of


class Picky(nn.Linear):
    """Fails for a batch of more samples than `limit`."""

    def __init__(self, *, limit: int) -> None:
        super().__init__(2, 3)
        self.limit = limit

    def forward(self, values: Tensor) -> Tensor:
        if len(values) > self.limit:
            raise ValueError("too many samples\nsecond line")
        return super().forward(values)


def failed(targets: list[int], *, limit: int = 9) -> str:
    """The message of a step on samples 10, 11, ..."""
    size = len(targets)
    batch = Batch(torch.ones(size, 2), torch.tensor(targets), torch.arange(size), torch.arange(size) + 10,
                  torch.zeros(size, dtype=torch.bool))
    with pytest.raises((IndexError, ValueError)) as raised:
        runner_of(Picky(limit=limit), Classification(), batch_size=size).backward([batch], 0)
    return error_message(raised.value)


def test_the_sample_that_fails_alone_is_named() -> None:
    assert failed([0, 1, 2, 7, 1]) == "Target 7 is out of bounds. (sample 13 of data.train)"


def test_all_samples_are_named_if_none_fails_alone() -> None:
    assert failed([0] * 8, limit=2) == (
        "too many samples (samples 10, 11, 12, 13, 14, 15, ... of data.train)\nsecond line")


def noted(message: str, *, tries: bool) -> list[str]:
    def alone(part: range) -> Any:
        raise RuntimeError

    error = RuntimeError(message)
    blame(error, Batch(None, None, torch.arange(2), torch.arange(2), torch.zeros(2)), alone, tries=tries)
    return getattr(error, "__notes__", [])


def test_errors_of_the_machine_name_no_sample() -> None:
    assert noted("Connection closed by peer", tries=True) == []
    assert noted("CUDA error: device-side assert triggered", tries=False) == []


def test_after_an_error_on_a_gpu_nothing_is_tried() -> None:
    assert noted("it failed", tries=False) == ["samples 0, 1 of data.train"]
    assert noted("it failed", tries=True) == ["sample 0 of data.train"]


class Pairs:
    """A task that has no loss of a single sample, and whose error is of the same type as that of its absence."""

    def batch_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        raise AttributeError("no two targets are the same")


def test_a_loss_of_the_whole_batch_is_not_tried_on_single_samples() -> None:
    batch = Batch(torch.ones(3, 2), torch.arange(3), torch.arange(3), torch.arange(3), torch.zeros(3, dtype=torch.bool))
    with pytest.raises(AttributeError, match="no two targets are the same") as raised:
        runner_of(nn.Linear(2, 3), Pairs(), batch_size=3).backward([batch], 0)
    assert error_message(raised.value) == "no two targets are the same (samples 0, 1, 2 of data.train)"

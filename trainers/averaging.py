"""Optimizers that evaluate other weights than those they train: schedule-free ones average them.

Such an optimizer has the methods `train` and `eval`, which put the one or the other into the model. To go to and fro
rounds, so the trained weights are kept meanwhile, and put back to the bit: how often a run evaluates and saves does not
change it. A checkpoint's model has the averaged weights, and the trained ones are with the optimizer's tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from drumbeat.trainers.several_optimizers import parts_of_step

TRAINED = "trained"
"""The name of a parameter's trained values among the tensors of an optimizer."""


def switchable(optimizer: torch.optim.Optimizer) -> list[Any]:
    """The parts of an optimizer that can be switched."""
    return [one for one in parts_of_step(optimizer) if all(
        callable(getattr(one, method, None)) for method in ("train", "eval"))]


def switch(optimizer: torch.optim.Optimizer, mode: Literal["train", "eval"]) -> None:
    """Switches all of them."""
    for one in switchable(optimizer):
        getattr(one, mode)()


class Averaging:
    """The averaged weights of a phase. The optimizer is in training mode, except where `averaged` or `finish` say
    otherwise. Without such an optimizer, all of this does nothing."""

    def __init__(self, optimizer: torch.optim.Optimizer, trained: Sequence[nn.Parameter], names: Mapping[Tensor, str]
                 ) -> None:
        self.optimizer = optimizer
        self.trained = {f"{names[one]}/{TRAINED}": one for one in trained} if switchable(optimizer) else {}
        """The parameters, by the addresses of their trained values in a checkpoint."""
        self.kept: dict[str, Tensor] = {}
        """The trained values while the model has the averaged ones."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has the averaged weights."""
        self.kept = {address: one.detach().clone() for address, one in self.trained.items()}
        self.finish()
        try:
            yield
        finally:
            self.load(self.kept)
            self.kept = {}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts trained values by address into the model, which has the averaged ones."""
        if self.trained:
            switch(self.optimizer, "train")
            for address, one in self.trained.items():
                one.copy_(tensors[address])

    def finish(self) -> None:
        """Leaves the averaged weights in the model, for what comes after the phase."""
        if self.trained:
            switch(self.optimizer, "eval")

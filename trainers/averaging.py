"""Weights that are averaged over the steps of a phase, and evaluated and exported in place of those that are trained.

Either the optimizer averages them (schedule-free ones), by methods `train` and `eval` that put the one or the other
into the model; or `phases.NAME.average` does: torch's AveragedModel, which holds another copy. To go to and fro rounds,
so the trained weights are kept meanwhile, and put back to the bit: how often a run evaluates and saves does not change
it. A checkpoint's model has the averaged weights, and the trained ones are with the optimizer's tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any, Literal

import torch
from torch import Tensor, nn

from drumbeat.trainers.several_optimizers import parts_of_step

TRAINED = "trained"
"""The name of the trained values of a parameter or a buffer among the tensors of an optimizer."""
AVERAGE = "average"
"""Before the names of what else an average knows, such as the number of weights that it is the mean of."""


def switchable(optimizer: torch.optim.Optimizer) -> list[Any]:
    """The parts of an optimizer that can be switched."""
    return [one for one in parts_of_step(optimizer) if all(
        callable(getattr(one, method, None)) for method in ("train", "eval"))]


def switch(optimizer: torch.optim.Optimizer, mode: Literal["train", "eval"]) -> None:
    """Switches all of them."""
    for one in switchable(optimizer):
        getattr(one, mode)()


class Averaging:
    """The averaged weights of a phase. The model has the trained ones, except where `averaged` or `finish` say
    otherwise. Without an average, all of this does nothing."""

    def __init__(self, optimizer: torch.optim.Optimizer, model: nn.Module, average: Any = None,
                 due: Callable[[int], bool] = lambda step: True) -> None:
        """`average` is an AveragedModel, or None. `due` says whether it is updated after a step of the phase."""
        self.optimizer = optimizer
        self.model = model
        self.average = average
        self.due = due
        self.switches = bool(switchable(optimizer))
        self.kept: dict[str, Tensor] = {}
        """The trained values, by their addresses in a checkpoint, while the model has the averaged ones."""

    def trained(self) -> dict[str, Tensor]:
        """The tensors that `kept` has the values of."""
        named = self.model.named_parameters()
        if self.average is not None:
            own = self.average.state_dict(keep_vars=True).items()
            return {f"{name}/{TRAINED}": one for name, one in chain(named, self.model.named_buffers())} | {
                f"{AVERAGE}/{name}": one for name, one in own if not name.startswith("module.")}
        return {f"{name}/{TRAINED}": one for name, one in named if one.requires_grad} if self.switches else {}

    def is_due(self, step: int) -> bool:
        """Whether there is an average that `update` adds the model's weights to after this step of the phase."""
        return self.average is not None and self.due(step)

    def update(self) -> None:
        """Adds the model's weights to the average. Integers, such as BatchNorm's number of batches, have no mean:
        the average has the model's."""
        self.average.update_parameters(self.model)
        for live, averaged in zip(self.model.buffers(), self.average.module.buffers(), strict=True):
            if not (averaged.is_floating_point() or averaged.is_complex()):
                averaged.copy_(live)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The model has the averaged weights."""
        self.kept = {address: one.detach().clone() for address, one in self.trained().items()}
        self.finish()
        try:
            yield
        finally:
            self.load(self.kept)
            self.kept = {}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Puts trained values by address into the model, which has the averaged ones."""
        switch(self.optimizer, "train")
        self._copy(to_model=False)
        for address, one in self.trained().items():
            one.copy_(tensors[address])

    def finish(self) -> None:
        """Leaves the averaged weights in the model, for what comes after the phase. They are the trained ones until the
        first update."""
        switch(self.optimizer, "eval")
        if self.average is not None and self.average.n_averaged > 0:
            self._copy(to_model=True)

    @torch.no_grad()
    def _copy(self, *, to_model: bool) -> None:
        if self.average is not None:
            mine, others = (chain(one.parameters(), one.buffers()) for one in (self.model, self.average.module))
            for live, averaged in zip(mine, others, strict=True):
                (live if to_model else averaged).copy_(averaged if to_model else live)

"""Several optimizers as one, each for its own parameters: Muon for matrices, and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from drumbeat.trainers.checkpoints.state import LABEL


class SeveralOptimizers(torch.optim.Optimizer):
    """Has the parameter groups of all `optimizers`, so a scheduler and a change of the learning rate apply to each. The
    state is theirs, and is saved with them."""

    def __init__(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        super().__init__([group for one in optimizers for group in one.param_groups], {})
        self.optimizers = list(optimizers)

    def step(self, closure: None = None) -> Any:  # type: ignore[override]
        """Takes a step of each."""
        for one in self.optimizers:
            one.step()


def rate_curves(optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """The curves of learning rates, each with the number of its parameter group: train/lr is that of the first group,
    and train/lr/NAME that of the first group with another rate than those before it."""
    found, rates = {"train/lr": 0}, {float(optimizer.param_groups[0]["lr"])}
    for number, group in enumerate(optimizer.param_groups):
        if (rate := float(group["lr"])) not in rates:
            rates.add(rate)
            found[f"train/lr/{group.get(LABEL, number)}"] = number
    return found


def parts_of_step(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    """The optimizers that a step consists of."""
    return optimizer.optimizers if isinstance(optimizer, SeveralOptimizers) else [optimizer]

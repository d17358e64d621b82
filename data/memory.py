"""Datasets in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from drumbeat.data.order import Integers


class Arrays:
    """Inputs [n, ...] and targets [n, ...] as (input, target) pairs by index, and as whole batches."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        if len(inputs) != len(targets):
            raise ValueError(f"there are {len(inputs)} inputs, but {len(targets)} targets")
        self.inputs = inputs
        self.targets = targets

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.inputs[index], self.targets[index]

    def fetch(self, indices: Integers) -> tuple[Tensor, Tensor]:
        """The samples at these indices as one batch. For 32 rows of 784 floats, `inputs[rows]` takes 150 us, and this
        takes 20."""
        rows = torch.from_numpy(indices)
        return self.inputs.index_select(0, rows), self.targets.index_select(0, rows)

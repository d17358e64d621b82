"""Prepares the inputs of a batch for the model, in the same way in training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.data.device import to_device


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """The model's outputs. A dict of inputs is passed as keyword arguments, a tuple as positional ones, and anything
    else, a named tuple or a list of samples too, as one argument."""
    if type(inputs) is tuple:
        return model(*inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(inputs)


class Forward:
    """Moves a batch's inputs to the device, transforms them as a batch, and sets the precision of the forward pass.

    `channels_last` is the memory format of image batches, and `bf16` whether the forward pass runs in bfloat16 under
    autocast.
    """

    def __init__(self, *, device: torch.device, transforms: nn.Module, channels_last: bool, bf16: bool) -> None:
        self.device = device
        self.transforms = transforms.to(device)
        self.channels_last = channels_last
        self.bf16 = bf16

    def inputs(self, inputs: Any) -> Any:
        """A batch's inputs on the device, transformed."""
        moved = to_device(inputs, self.device)
        if self.transforms:
            with torch.no_grad():
                moved = self.transforms(moved)
        if self.channels_last and isinstance(moved, Tensor) and moved.dim() == 4:
            moved = moved.contiguous(memory_format=torch.channels_last)
        return moved

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16) if self.bf16 else nullcontext()

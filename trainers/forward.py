"""Prepares the inputs of a batch for the model, in the same way in training, evaluation and inference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.data.device import to_device
from drumbeat.data.structure import describe, leaves, mapped


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """The model's outputs. A dict of inputs is passed as keyword arguments, a tuple as positional ones, and anything
    else, a named tuple or a list of samples too, as one argument."""
    if type(inputs) is tuple:
        return model(*inputs)
    if isinstance(inputs, Mapping):
        return model(**inputs)
    return model(inputs)


def _means(every: Sequence[Any]) -> Any:
    """The means of outputs of one structure. Raises `TypeError` if it has no tensors."""
    parts = iter([*zip(*map(leaves, every), strict=True)])
    if not any(isinstance(leaf, Tensor) for leaf in leaves(every[0])):
        raise TypeError(f"evaluation.views need the mean of a model's outputs, and this one returns "
                        f"{describe(every[0])}: no tensor, and no tuple, list, dict or dataclass with one")
    return mapped(lambda leaf: _mean(*next(parts)), every[0])


def _mean(first: Any, *others: Any) -> Any:
    """The mean of floating-point tensors, in float32; of anything else the first."""
    if not isinstance(first, Tensor) or not first.is_floating_point():
        return first
    return torch.stack([first.float(), *(one.float() for one in others)]).mean(0)


class Forward:
    """Moves a batch's inputs to the device, transforms them as a batch, and sets the precision of the forward pass.

    `channels_last` is the memory format of image batches, and `bf16` and `fp16` whether the forward pass runs in
    bfloat16 or float16 under autocast. `views` are transforms of a batch's inputs for evaluation (`outputs`).
    """

    def __init__(self, *, device: torch.device, transforms: nn.Module, channels_last: bool, bf16: bool,
                 fp16: bool = False, views: Sequence[Callable[[Any], Any]] = ()) -> None:
        self.device = device
        self.transforms = transforms.to(device)
        self.channels_last = channels_last
        self.bf16 = bf16
        self.fp16 = fp16
        self.views = views

    def inputs(self, inputs: Any) -> Any:
        """A batch's inputs on the device, transformed."""
        moved = to_device(inputs, self.device)
        if self.transforms:
            with torch.no_grad():
                moved = self.transforms(moved)
        return self._laid_out(moved)

    def outputs(self, model: Callable[..., Any], inputs: Any) -> Any:
        """The model's outputs for a batch in an evaluation: with `views`, the mean of those for its inputs and for each
        view of them. Raises `TypeError` if they have no mean."""
        plain = self.inputs(inputs)
        found = call(model, plain)
        others = [call(model, self._laid_out(view(plain))) for view in self.views]
        return _means([found, *others]) if others else found

    def _laid_out(self, inputs: Any) -> Any:
        """Images in the configured memory format."""
        if self.channels_last and isinstance(inputs, Tensor) and inputs.dim() == 4:
            return inputs.contiguous(memory_format=torch.channels_last)
        return inputs

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of the forward pass."""
        if not self.bf16 and not self.fp16:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16 if self.bf16 else torch.float16)

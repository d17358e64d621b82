"""The tensor that a task of Drumbeat's works with, from what a model returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from drumbeat.data.structure import describe, leaves

NAMES = ("logits", "out")
"""Under which models of Hugging Face and of torchvision return it."""


def main_output(outputs: Any) -> Tensor:
    """The output itself if it is a tensor; otherwise its item or attribute `logits` or `out`, or the only tensor in it.
    Raises `TypeError` if there is no such tensor, or if it could be one of several."""
    if isinstance(outputs, Tensor):
        return outputs
    for name in NAMES:
        found = outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    tensors = [leaf for leaf in leaves(outputs) if isinstance(leaf, Tensor)]
    if len(tensors) == 1:
        return tensors[0]
    raise TypeError(f"the model returns {describe(outputs)}, and this task needs one tensor, or one under the name "
                    f"{' or '.join(NAMES)}. A task of your own gets the outputs as they are")

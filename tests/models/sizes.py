"""The size of a model."""

from __future__ import annotations

from torch import nn


def parameters(model: nn.Module) -> int:
    """How many numbers a model has that are trained."""
    return sum(parameter.numel() for parameter in model.parameters())

"""What a phase trains of a model, and what it freezes."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from drumbeat.configs.schema import Phase
from drumbeat.trainers.patterns import Selection, select


def frozen_parts(model: nn.Module, phase: Phase, name: str) -> Selection:
    """What the phase freezes: modules, which stay in evaluation mode, and all parameters that it does not train. Raises
    `PreflightError` for a name or a type that is not in the model."""
    return select(model, phase.freeze, f"phases.{name}.freeze")


def trainable(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that a model was built to train: all that it has not frozen itself."""
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def set_trainable(model: nn.Module, parameters: Iterable[nn.Parameter], frozen: Selection) -> None:
    """Makes the model train these parameters, except those that are `frozen`, and no others."""
    model.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(parameter not in frozen.parameters)

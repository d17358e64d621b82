"""The table of parameter groups that `drumbeat show` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.configs.schema import Config, Phase
from drumbeat.configs.text_table import aligned
from drumbeat.trainers.build_optimizer import build_optimizer
from drumbeat.trainers.checkpoints.state import LABEL, NOT_SAVED
from drumbeat.trainers.freezing import frozen_parts, trainable
from drumbeat.trainers.parameter_groups import has_groups
from drumbeat.trainers.several_optimizers import parts_of_step


def groups_table(config: Config, model: nn.Module) -> list[str]:
    """A table for each phase whose parameters are trained in different ways; of the model's own parameters alone, and
    without memory for them. Raises `PreflightError`."""
    free = trainable(model)
    lines: list[str] = []
    for name, phase in config.phases.items():
        if phase is not None and has_groups(phase):
            frozen = frozen_parts(model, phase, name).parameters
            lines += ["", *_table(name, phase, model, [one for one in free if one not in frozen])]
    return lines


def _table(name: str, phase: Phase, model: nn.Module, trained: Sequence[nn.Parameter]) -> list[str]:
    """A row for each group: its optimizer, how many parameters it has, and its values that are not those of all."""
    likes = [nn.Parameter(torch.empty(one.shape, dtype=one.dtype, device="meta"), one.dtype.is_floating_point)
             for one in trained]
    optimizer = build_optimizer(phase, name, model, trained, likes)
    groups = [(type(part).__name__, group) for part in parts_of_step(optimizer) for group in part.param_groups]
    keys = [key for key in dict.fromkeys(key for _, group in groups for key in group if key not in NOT_SAVED)
            if key in ("lr", "weight_decay") or any(kind == other and _value(group.get(key)) != _value(one.get(key))
                                  for kind, group in groups for other, one in groups)]
    rows = [(f"groups of {name}", "optimizer", "tensors", "parameters", *keys)]
    rows += [(group[LABEL], kind, str(len(group["params"])), f"{sum(one.numel() for one in group['params']):,}",
              *(_value(group[key]) if key in group else "" for key in keys)) for kind, group in groups]
    return aligned(rows, right=set(range(2, 4 + len(keys))))


def _value(value: Any) -> str:
    """A value of a group as text."""
    is_number = isinstance(value, int | float | Tensor) and not isinstance(value, bool)
    return f"{float(value):.4g}" if is_number else str(value)

"""Builds transforms: objects of classes, and functions, which get the config's arguments by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

from torch import nn

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.schema import Config
from drumbeat.configs.yaml_text import inline
from drumbeat.data.loader import Transform
from drumbeat.trainers.target import all_of, function_at, instantiate


def build_transforms(nodes: list[Any], key: str) -> list[Transform]:
    """The transforms of a list of the config. Raises one `PreflightError` with all faults."""
    return all_of([partial(_build, node, f"{key}[{number}]") for number, node in enumerate(nodes)])


def _build(node: Any, key: str) -> Transform:
    """A target that takes one more positional argument than the config gives is itself the transform."""
    if not isinstance(node, Mapping):
        raise PreflightError(Fault(what=f"{key} must be a section: `_target_: package.module.Name` and its arguments",
                                   where=key, given=inline(node), remedy=f"{{_target_: {node}}}"
                                   if isinstance(node, str) else ""))
    built = function_at(node, key, lacks=1) or instantiate(node, key)
    if not callable(built):
        raise PreflightError(Fault(what=f"{key} cannot be called: it is of type {type(built).__name__}", where=key,
                                   given=inline(node), remedy="A transform is a function, or an object with "
                                   "__call__(self, value)."))
    return cast(Transform, built)


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Transform) -> None:
        super().__init__()
        self.function = function

    def forward(self, value: Any) -> Any:
        return self.function(value)


def as_module(transform: Transform) -> nn.Module:
    """A transform of batches: modules have tensors that move to the device."""
    return transform if isinstance(transform, nn.Module) else Applied(transform)


def fused_transforms(config: Config, lists: Sequence[list[Transform]]
                     ) -> tuple[Sequence[list[Transform]], int | Literal["auto"] | None]:
    """The lists of transforms, fused if the config says so, and the `short_side` at which images are read for them,
    which is the same in training and in evaluation."""
    if not (config.data.transforms.fuse and any(type(one).__module__.startswith("torchvision.transforms.v2")
                                                for several in lists for one in several)):
        return lists, "auto"
    from drumbeat.data.fused import fuse, needed_side  # imports OpenCV and torchvision, which not every run needs

    sides = [needed_side(several) for several in lists]
    known = [side for side in sides if side is not None]
    return [fuse(several) for several in lists], max(known) if len(known) == len(sides) else None

"""Selects modules and parameters of a model by name and by type.

    backbone                        the module or parameter of this name, and everything in it
    layer?.*.bias                   those whose names fit: * stands for any text, dots included, and ? for a character
    {type: torch.nn.BatchNorm2d}    the modules of this class, subclasses included
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from drumbeat.configs.errors import Fault, PreflightError, nearest
from drumbeat.configs.yaml_text import inline
from drumbeat.trainers.model_and_task import ModelAndTask
from drumbeat.trainers.sync_batchnorm import REPLACES
from drumbeat.trainers.target import locate


@dataclass(frozen=True)
class Selection:
    """Parts of a model."""

    modules: Sequence[nn.Module]
    """The modules, each with everything in it."""
    parameters: frozenset[nn.Parameter]
    """All selected parameters: those of the modules, and others."""


def select(model: nn.Module, chosen: Sequence[Any], key: str) -> Selection:
    """The parts of a model that a list of patterns and types selects; `key` is the list's dotted name, for errors.
    Names are the model's, and "task" stands for what is trained of the task. Raises `PreflightError` for a pattern or a
    type that selects nothing."""
    inner = model.model if isinstance(model, ModelAndTask) else model
    modules = {name: one for name, one in inner.named_modules(remove_duplicate=False) if name}
    modules |= {"task": model.task} if isinstance(model, ModelAndTask) else {}
    parameters = dict(inner.named_parameters(remove_duplicate=False))
    found: dict[nn.Module, None] = {}
    single: set[nn.Parameter] = set()
    for number, one in enumerate(chosen):
        if isinstance(one, str):
            some = [module for name, module in modules.items() if fnmatchcase(name, one)]
            those = [parameter for name, parameter in parameters.items() if fnmatchcase(name, one)]
            if not some and not those:
                raise PreflightError(_no_such_part(one, [*modules, *parameters], key, chosen))
        else:
            some, those = _of_type(modules.values(), one, f"{key}[{number}]"), []
        found |= dict.fromkeys(some)
        single.update(those)
    return Selection([*found], frozenset(single.union(*(module.parameters() for module in found))))


def within(name: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern fits a dotted name, or that of a module that holds it."""
    parts = name.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return any(fnmatchcase(one, pattern) for pattern in patterns for one in names)


def _of_type(modules: Iterable[nn.Module], one: Any, where: str) -> list[nn.Module]:
    """The modules of the class that {type: ADDRESS} names."""
    if not isinstance(one, Mapping) or [*one] != ["type"]:
        raise PreflightError(Fault(what="neither a pattern nor a type", where=where, given=inline(one),
                                   remedy="Write a name such as backbone.*, or {type: torch.nn.BatchNorm2d}."))
    kind = locate(str(one["type"] or ""), where)
    if not (inspect.isclass(kind) and issubclass(kind, nn.Module)):
        raise PreflightError(Fault(what=f"{one['type']} is not a class of modules", where=where, given=inline(one),
                                   remedy="Name a class derived from torch.nn.Module."))
    found = [module for module in modules if isinstance(module, kind) or
             issubclass(getattr(module, REPLACES, type(module)), kind)]
    if not found:
        names = {type(module).__name__: None for module in modules}
        raise PreflightError(Fault(what=f"the model has no module of type {one['type']}", where=where,
                                   given=inline(one), remedy=nearest(kind.__name__, names)))
    return found


def _no_such_part(pattern: str, names: Sequence[str], key: str, chosen: Sequence[Any]) -> Fault:
    close = nearest(pattern, [*names, *(f"*.{name.rpartition('.')[2]}" for name in names)])
    tops = dict.fromkeys(name.partition(".")[0] for name in names)
    what = f"no module or parameter of the model fits '{pattern}'" if "*" in pattern or "?" in pattern else (
        f"the model has no module '{pattern}'")
    return Fault(what=what, where=key, given=inline([*chosen]), remedy=close if close.startswith("Did") else
                 f"Its modules are {', '.join(tops)} and their submodules.")

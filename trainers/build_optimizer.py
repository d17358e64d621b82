"""Builds the optimizer of a phase, its scheduler and the average of its weights. An optimizer may have parameter
groups, and a group an optimizer of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from drumbeat.configs.errors import Fault, PreflightError, nearest
from drumbeat.configs.schema import Phase
from drumbeat.configs.yaml_text import inline
from drumbeat.trainers.averaging import switch
from drumbeat.trainers.checkpoints.state import IMPLEMENTATIONS, LABEL
from drumbeat.trainers.freezing import trainable
from drumbeat.trainers.parameter_groups import ParameterGroup, groups_of, has_groups, names_of, parameter_groups
from drumbeat.trainers.several_optimizers import SeveralOptimizers
from drumbeat.trainers.target import instantiate, locate

NAMED = ("named_parameters", "named_params")
"""Names of a first argument that gets the names of the parameters, too."""

Parameters = Iterable[nn.Parameter]


def optimizer_maker(phase: Phase, name: str, model: nn.Module) -> Callable[[Parameters], torch.optim.Optimizer]:
    """Makes the optimizer of phase `name` for the parameters that the model then trains, or for as many others in their
    place. Raises `PreflightError`."""
    return lambda parameters: build_optimizer(phase, name, model, trainable(model), parameters)


def build_optimizer(phase: Phase, name: str, model: nn.Module, trained: Sequence[nn.Parameter],
                    parameters: Parameters | None = None) -> torch.optim.Optimizer:
    """The phase's optimizer for the parameters of the model that are `trained`, or for `parameters` in their place. On
    a GPU it uses the fused implementation if there is one, unless the config chooses another. Each parameter group has
    the names of its parameters, `param_names`, and a name of its own. Raises `PreflightError`."""
    section, names = f"phases.{name}.optimizer", names_of(model)
    named = {used: names[own] for own, used in
             zip(trained, trained if parameters is None else parameters, strict=True)}
    if not has_groups(phase):
        built = _build(phase.optimizer, section, list(named), named)
    else:
        by_section: dict[str, list[ParameterGroup]] = {}
        own = {one for one, group in groups_of(phase).items() if "_target_" in group.optimizer}
        for group in parameter_groups(phase, name, model, trained):
            mine = f"phases.{name}.groups.{group.name}.optimizer" if group.name in own else section
            by_section.setdefault(mine, []).append(group)
        parts = [_with_groups(phase, where, section, some, named) for where, some in by_section.items()]
        built = parts[0] if len(parts) == 1 else SeveralOptimizers(parts)
    for each in built.param_groups:
        if all(one in named for one in each["params"]):
            each["param_names"] = [named[one] for one in each["params"]]
    switch(built, "train")
    return built


def build_scheduler(phase: Phase, name: str, optimizer: torch.optim.Optimizer) -> Any:
    """The phase's learning-rate scheduler; None for a constant learning rate. Schedulers within it that take an
    `optimizer` get it."""
    return instantiate(phase.scheduler, f"phases.{name}.scheduler", optimizer, inner={"optimizer": optimizer}) if (
        phase.scheduler) else None


def build_average(phase: Phase, name: str, model: nn.Module) -> Any:
    """The average of the model's weights in phase `name`, which has a copy of the model; None for no average. Raises
    `PreflightError`."""
    if not phase.average:
        return None
    where = f"phases.{name}.average"
    kind = locate(str(phase.average.get("_target_") or ""), where)
    if not (isinstance(kind, type) and issubclass(kind, AveragedModel)):
        raise PreflightError(Fault(what="this does not average weights", where=where,
                                   given=str(phase.average.get("_target_")),
                                   remedy="Name torch.optim.swa_utils.AveragedModel, or a class that extends it. For "
                                   "an EMA, its multi_avg_fn is {_target_: torch.optim.swa_utils.get_ema_multi_avg_fn, "
                                   "decay: 0.999}"))
    for function in ("avg_fn", "multi_avg_fn"):
        if isinstance(given := phase.average.get(function), str):
            raise PreflightError(Fault(what=f"{function} must be a section with a _target_", given=given,
                                       where=f"{where}.{function}", remedy=f"Write {function}: {{_target_: {given}}}"))
    return instantiate(phase.average, where, model)


def has_fused(optimizer: Any) -> bool:
    """Whether the class has the argument `fused`. Not for Adagrad: some supported versions of torch refuse it on a
    GPU."""
    return optimizer is not torch.optim.Adagrad and "fused" in inspect.signature(optimizer).parameters


def _with_groups(phase: Phase, where: str, section: str, groups: Sequence[ParameterGroup],
                 named: Mapping[nn.Parameter, str]) -> torch.optim.Optimizer:
    """An optimizer of some groups; `where` is its key in the config, and `section` that of the phase's optimizer."""
    parameters, config = list(named), groups_of(phase)
    node = phase.optimizer if where == section else config[groups[0].name].optimizer
    given: list[dict[str, Any]] = []
    for group in groups:
        key = f"{section.rpartition('.')[0]}.groups.{group.name}.optimizer"
        values = config[group.name].optimizer if where == section and group.name else {}
        given.append({"params": [parameters[number] for number in group.numbers], **instantiate(values, key)})
    built = _build(node, where, [{**one} for one in given], named)  # torch adds its defaults to what it is given
    if len(built.param_groups) != len(given):
        raise PreflightError(Fault(what="the optimizer does not keep the parameter groups that it is given",
                                   where=where, given=str(node.get("_target_")),
                                   remedy="Give them to torch.optim.Optimizer, or remove groups and layers."))
    for group, values, live in zip(groups, given, built.param_groups, strict=True):
        if built.defaults and (unknown := [one for one in values if one not in {"params", *built.defaults}]):
            raise PreflightError(Fault(
                what=f"{node.get('_target_')} has no argument '{unknown[0]}' for a group",
                where=f"{section.rpartition('.')[0]}.groups.{group.name}.optimizer.{unknown[0]}",
                given=f"{unknown[0]}: {inline(values[unknown[0]])}", remedy=nearest(unknown[0], built.defaults)))
        if group.scale != 1:
            live["lr"] = live["lr"] * group.scale
        live[LABEL] = group.label
    return built


def _build(node: Mapping[str, Any], section: str, parameters: Sequence[Any], named: Mapping[nn.Parameter, str]
           ) -> torch.optim.Optimizer:
    """An optimizer for parameters or for groups of them."""
    target = locate(str(node["_target_"] or ""), section) if "_target_" in node else None
    flat = [one for part in parameters for one in (part["params"] if isinstance(part, dict) else [part])]
    if all(one.device.type == "cuda" and one.is_floating_point() for one in flat) and (
            target and not IMPLEMENTATIONS & {*node} and has_fused(target)):
        node = {**node, "fused": True}
    if _first_argument(target) in NAMED:
        with_names = partial(map, lambda one: (named[one], one))
        parameters = [{**part, "params": [*with_names(part["params"])]} if isinstance(part, dict) else
                      (named[part], part) for part in parameters]
    return cast(torch.optim.Optimizer, instantiate(node, section, parameters))


def _first_argument(target: Any) -> str:
    """The name of a target's first argument; '' if it does not tell."""
    try:
        return next(iter(inspect.signature(target).parameters), "")
    except (TypeError, ValueError):
        return ""

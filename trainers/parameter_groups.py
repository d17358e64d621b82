"""The parameter groups of a phase: which of its parameters are trained with which values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.schema import Group, Phase
from drumbeat.configs.yaml_text import inline
from drumbeat.trainers.model_and_task import ModelAndTask
from drumbeat.trainers.patterns import select

SHOWN = 6
"""The largest number of parameters that a fault names."""


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Parameters with the same values in an optimizer."""

    name: str
    """In the config; '' for the parameters that are in none of its groups."""
    layer: str = ""
    """The layer that they are in; '' if the phase has no layers."""
    scale: float = 1.0
    """The learning rate is multiplied by it."""
    numbers: Sequence[int]
    """Which of the trained parameters these are, in the order of the model."""

    @property
    def label(self) -> str:
        """A name for curves and tables."""
        return " ".join(filter(None, [self.name, self.layer])) or "others"


def has_groups(phase: Phase) -> bool:
    """Whether a phase trains parameters in different ways."""
    return bool(phase.groups or phase.layers)


def groups_of(phase: Phase) -> dict[str, Group]:
    """The groups of the config by name."""
    return {name: group for name, group in phase.groups.items() if group is not None}


def parameter_groups(phase: Phase, name: str, model: nn.Module, trained: Sequence[nn.Parameter]
                     ) -> list[ParameterGroup]:
    """The groups of the parameters that phase `name` trains, of which each is in one: first those of no group, then the
    groups in the config's order; within a group, the layers from the output to the input. Raises `PreflightError` for
    a group without parameters, and for parameters in no layer."""
    of = _group_of(phase, f"phases.{name}.groups", model, trained)
    layers = list(_layers(phase, f"phases.{name}.layers", model))
    layer_of = {one: number for number, (_, some) in reversed([*enumerate(layers)]) for one in some}
    if lost := [one for one in trained if layers and one not in layer_of]:
        raise PreflightError(_listed(model, lost, f"{len(lost)} parameters are in none of the layers",
                                     f"phases.{name}.layers", "Add their modules, or freeze them."))
    found: list[ParameterGroup] = []
    for group in ["", *groups_of(phase)]:
        for number in reversed(range(max(1, len(layers)))):
            numbers = [place for place, one in enumerate(trained)
                       if of.get(one, "") == group and layer_of.get(one, 0) == number]
            if numbers:
                found.append(ParameterGroup(name=group, layer=layers[number][0] if layers else "", numbers=numbers,
                                            scale=phase.layer_decay ** (len(layers) - 1 - number) if layers else 1.0))
    return found


def names_of(model: nn.Module) -> dict[nn.Parameter, str]:
    """The parameters' names, as patterns in a config mean them."""
    prefix = "model." if isinstance(model, ModelAndTask) else ""
    return {parameter: name.removeprefix(prefix) for name, parameter in model.named_parameters()}


def _group_of(phase: Phase, where: str, model: nn.Module, trained: Sequence[nn.Parameter]) -> dict[nn.Parameter, str]:
    """The first group that each parameter fits, if there is one."""
    of: dict[nn.Parameter, str] = {}
    for name, group in groups_of(phase).items():
        match = select(model, group.match, f"{where}.{name}.match").parameters if group.match else {*trained}
        chosen = [one for one in trained if one in match]
        fits = [one for one in chosen if not group.ndim or one.ndim in group.ndim]
        mine = [one for one in fits if one not in of]
        if not mine:
            sizes = sorted({one.ndim for one in chosen})
            before = sorted({of[one] for one in fits})
            raise PreflightError(Fault(
                what=f"group {name} has no parameters", where=f"{where}.{name}",
                given=f"match: {inline([*group.match])}, ndim: {inline([*group.ndim])}",
                remedy="The phase freezes all that it matches." if not chosen else
                       f"What it matches has {' or '.join(map(str, sizes))} dimensions." if not fits else
                       f"All are in groups that come first: {', '.join(before)}. Put it before them."))
        of |= dict.fromkeys(mine, name)
    return of


def _layers(phase: Phase, where: str, model: nn.Module) -> Iterator[tuple[str, frozenset[nn.Parameter]]]:
    """Name and parameters of each layer, from input to output. A pattern that fits several modules makes a layer of
    each, but not of those inside them."""
    inner = model.model if isinstance(model, ModelAndTask) else model
    modules = {module: name for name, module in inner.named_modules()}
    parameters = names_of(model)
    for number, item in enumerate(phase.layers):
        if isinstance(item, list | tuple):
            found = select(model, item, f"{where}[{number}]")
            yield str(item[0]), found.parameters
            continue
        found, inside = select(model, [item], where), set[nn.Module]()
        for module in found.modules:
            if module not in inside and any(True for _ in module.parameters()):
                yield modules.get(module, "task"), frozenset(module.parameters())
            inside.update(module.modules())
        held = {one for module in found.modules for one in module.parameters()}
        yield from ((name, frozenset([one])) for one, name in parameters.items()
                    if one in found.parameters and one not in held)


def _listed(model: nn.Module, some: Sequence[nn.Parameter], what: str, where: str, remedy: str) -> Fault:
    names = names_of(model)
    more = f" and {len(some) - SHOWN} more" if len(some) > SHOWN else ""
    return Fault(what=what, where=where, given=", ".join(names[one] for one in some[:SHOWN]) + more, remedy=remedy)

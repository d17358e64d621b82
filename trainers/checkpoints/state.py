"""What training keeps beside the weights, as tensors and plain numbers that a checkpoint can hold, and back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import short

IMPLEMENTATIONS = {"fused", "foreach", "capturable", "differentiable"}
"""Arguments of torch's optimizers that choose the implementation of a step, not its result."""


def parameter_names(model: nn.Module) -> dict[Tensor, str]:
    """Each parameter's name in the model."""
    return {parameter: name for name, parameter in model.named_parameters()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's tensors by parameter and state name: "head.4.weight/exp_avg"."""
    return {f"{names[parameter]}/{name}": value for parameter, state in optimizer.state.items()
            for name, value in state.items() if isinstance(value, Tensor)}


def optimizer_numbers(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Any]:
    """What else the optimizer holds: its groups' settings, and state that is no tensor."""
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    loose = {names[parameter]: {name: value for name, value in state.items() if not isinstance(value, Tensor)}
             for parameter, state in optimizer.state.items()}
    return {"groups": groups, "state": {name: values for name, values in loose.items() if values}}


def tensors_after_a_step(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
                         trained: Iterable[nn.Parameter], names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The tensors that an optimizer for these parameters, which have gradients, holds after one step, on the meta
    device: names, shapes and types. Most optimizers make their tensors in their first step.

    The step is taken on tensors without content; for an optimizer that reads values (Adafactor, ASGD), on copies.
    """
    def after(copy: Callable[[Tensor], Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
        likes = {nn.Parameter(copy(parameter.detach())): parameter for parameter in trained}
        for like, parameter in likes.items():
            like.grad = None if parameter.grad is None else copy(parameter.grad)
        optimizer = build(list(likes))
        optimizer.step()
        held = optimizer_tensors(optimizer, {like: names[parameter] for like, parameter in likes.items()})
        return {name: (value.shape, value.dtype) for name, value in held.items()}

    from torch._subclasses.fake_tensor import FakeTensorMode  # takes a second; torch's optimizers import it too

    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            found = after(torch.empty_like)
    except Exception:
        found = after(torch.clone)
    return {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in found.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str],
                      tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Puts an optimizer into a saved state. Tensors of a parameter's shape take its memory order, and all live on its
    device but for counts of steps, as in torch: those stay on the CPU unless a kernel there counts them. The optimizer
    keeps its own implementation of a step, because the state may come from another device."""
    by_name = {name: parameter for parameter, name in names.items()}
    counted_there = any(group.get("fused") or group.get("capturable") for group in optimizer.param_groups)
    for address, value in tensors.items():
        name, _, item = address.rpartition("/")
        parameter = by_name[name]
        if value.shape == parameter.shape:
            like = torch.empty_like(parameter, dtype=value.dtype)
        else:
            like = torch.empty_like(value, device="cpu" if item == "step" and not counted_there else parameter.device)
        optimizer.state[parameter][item] = like.copy_(value)
    for name, values in numbers["state"].items():
        optimizer.state[by_name[name]].update(values)
    for group, saved in zip(optimizer.param_groups, numbers["groups"], strict=True):
        group.update({name: tuple(value) if isinstance(group.get(name), tuple) else value
                      for name, value in saved.items() if name not in IMPLEMENTATIONS})


def scheduler_numbers(scheduler: Any) -> dict[str, Any]:
    """What changes in a scheduler as it runs. What was built from the config (functions, milestones) is built again."""
    if scheduler is None:
        return {}
    plain = {name: value for name, value in vars(scheduler).items() if _is_plain(value)}
    inner = [scheduler_numbers(one) for one in getattr(scheduler, "_schedulers", [])]
    return plain | ({"_schedulers": inner} if inner else {})


def restore_scheduler(scheduler: Any, numbers: Mapping[str, Any]) -> None:
    """Puts a scheduler, built again from the config, into a saved state."""
    if scheduler is None:
        return
    vars(scheduler).update({name: value for name, value in numbers.items() if name != "_schedulers"})
    for one, saved in zip(getattr(scheduler, "_schedulers", []), numbers.get("_schedulers", []), strict=True):
        restore_scheduler(one, saved)


SHOWN = 6
"""Differences between a checkpoint and a model that are listed."""


def load_weights(model: nn.Module, saved: Mapping[str, Tensor], checkpoint: Path, target: str) -> None:
    """Puts saved weights into a model, all or none. Raises `RunError` where names or shapes differ."""
    differing = list(_differences(model.state_dict(), saved))
    if differing:
        more = f"\n... and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise RunError(Fault(what="the checkpoint is of another architecture than the config's model",
                             where=short(checkpoint / "model.safetensors"), given="\n".join(differing[:SHOWN]) + more,
                             remedy=f"Has {target} changed since? The run's folder holds the code as it was."))
    model.load_state_dict(saved)


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each tensor that is missing, too many, or of another shape."""
    for name in sorted({*expected, *found}):
        shapes = [str(list(one[name].shape)) if name in one else "nothing" for one in (expected, found)]
        if shapes[0] != shapes[1]:
            yield f"{name}: expected {shapes[0]}, found {shapes[1]}"


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """A digest over names, types, shapes and bytes of a state dict, buffers included, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or (
        isinstance(value, list) and all(map(_is_plain, value)))

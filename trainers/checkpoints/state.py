"""Converts the state of model, optimizer and scheduler to tensors and plain values for a checkpoint, and back."""

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
"""Arguments of torch's optimizers that choose the implementation of a step, and not its result."""


def parameter_names(model: nn.Module) -> dict[Tensor, str]:
    """Each parameter's name in the model."""
    return {parameter: name for name, parameter in model.named_parameters()}


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's tensors by parameter and state name: "head.4.weight/exp_avg"."""
    return {f"{names[parameter]}/{name}": value for parameter, state in optimizer.state.items()
            for name, value in state.items() if isinstance(value, Tensor)}


def optimizer_numbers(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Any]:
    """The rest of the optimizer's state: settings of its groups, and state that is not a tensor."""
    groups = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    loose = {names[parameter]: {name: value for name, value in state.items() if not isinstance(value, Tensor)}
             for parameter, state in optimizer.state.items()}
    return {"groups": groups, "state": {name: values for name, values in loose.items() if values}}


def tensors_after_a_step(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
                         trained: Iterable[nn.Parameter], names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The names, shapes and types (as tensors on the meta device) of the state that an optimizer for these parameters
    has after one step. Most optimizers create it in their first step. The parameters must have gradients.

    The step is taken on fake tensors or, for an optimizer that reads values (Adafactor, ASGD), on copies.
    """
    def after(copy: Callable[[Tensor], Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
        likes = {nn.Parameter(copy(parameter.detach())): parameter for parameter in trained}
        for like, parameter in likes.items():
            like.grad = None if parameter.grad is None else copy(parameter.grad)
        optimizer = build(list(likes))
        optimizer.step()
        held = optimizer_tensors(optimizer, {like: names[parameter] for like, parameter in likes.items()})
        return {name: (value.shape, value.dtype) for name, value in held.items()}

    from torch._subclasses.fake_tensor import (
        FakeTensorMode,  # takes a second to import; torch's optimizers import it too
    )

    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            found = after(torch.empty_like)
    except Exception:
        found = after(torch.clone)
    return {name: torch.empty(shape, dtype=dtype, device="meta") for name, (shape, dtype) in found.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str],
                      tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
    """Loads a saved state into an optimizer. Tensors of a parameter's shape get its memory format. All tensors are on
    the parameter's device except, as in torch, step counters, which are on the CPU unless a kernel counts them. The
    optimizer keeps its own implementation of a step, because the state may have been saved on another device."""
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
    """The plain values of a scheduler. Other attributes (functions, milestones) are built from the config again."""
    if scheduler is None:
        return {}
    plain = {name: value for name, value in vars(scheduler).items() if _is_plain(value)}
    inner = [scheduler_numbers(one) for one in getattr(scheduler, "_schedulers", [])]
    return plain | ({"_schedulers": inner} if inner else {})


def restore_scheduler(scheduler: Any, numbers: Mapping[str, Any]) -> None:
    """Loads a saved state into a scheduler that was built from the config."""
    if scheduler is None:
        return
    vars(scheduler).update({name: value for name, value in numbers.items() if name != "_schedulers"})
    for one, saved in zip(getattr(scheduler, "_schedulers", []), numbers.get("_schedulers", []), strict=True):
        restore_scheduler(one, saved)


SHOWN = 6
"""The largest number of differences that an error lists."""


def load_weights(model: nn.Module, saved: Mapping[str, Tensor], checkpoint: Path, target: str) -> None:
    """Loads saved weights into a model. Raises `RunError` if names or shapes differ."""
    differing = list(_differences(model.state_dict(), saved))
    if differing:
        more = f"\n... and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise RunError(Fault(what="the checkpoint does not fit the architecture of the config's model",
                             where=short(checkpoint / "model.safetensors"), given="\n".join(differing[:SHOWN]) + more,
                             remedy=f"Has {target} changed since? The run's folder has the code that trained it."))
    model.load_state_dict(saved)


def _differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> Iterator[str]:
    """A line for each tensor that is missing, unexpected, or of another shape."""
    for name in sorted({*expected, *found}):
        shapes = [str(list(one[name].shape)) if name in one else "nothing" for one in (expected, found)]
        if shapes[0] != shapes[1]:
            yield f"{name}: expected {shapes[0]}, found {shapes[1]}"


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """A digest of the names, types, shapes and bytes of a state dict, including buffers, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        plain = value.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str) or (
        isinstance(value, list) and all(map(_is_plain, value)))

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
from drumbeat.trainers.checkpoints.codec import Encoder, decode, restore_object
from drumbeat.trainers.checkpoints.extra_state import is_extra_state

IMPLEMENTATIONS = {"fused", "foreach", "capturable", "differentiable"}
"""Arguments of torch's optimizers that choose the implementation of a step, and not its result."""

LABEL = "group_name"
"""The item of a parameter group that is its name in curves and tables."""
FROM_CONFIG = {"params", "param_names", LABEL}
NOT_SAVED = IMPLEMENTATIONS | FROM_CONFIG
"""Items of a parameter group that are the config's and the model's."""


def parameter_names(model: nn.Module) -> dict[Tensor, str]:
    """Each parameter's name in the model."""
    return {parameter: name for name, parameter in model.named_parameters()}


def training_state(optimizer: torch.optim.Optimizer, scheduler: Any, names: Mapping[Tensor, str]
                   ) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The state of an optimizer, of those inside it, and of a scheduler: the tensors by address,
    "head.4.weight/exp_avg", not copied; and the rest, which is JSON, as fields of `CheckpointState`. Raises
    `UnsavableError`."""
    encoder, inner = Encoder(), optimizer_parts(optimizer)
    encoder.know(*inner.values())
    saved = {path: _encode(encoder, one, path, names) for path, one in reversed(inner.items())}
    schedule = {} if scheduler is None else {"state": encoder.object(scheduler, "scheduler")}
    return encoder.tensors, {"optimizer": saved, "scheduler": schedule}


def tensors_after_a_step(build: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
                         trained: Iterable[nn.Parameter], names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The names, shapes, strides and types (as tensors on the meta device) of the state that an optimizer for these
    parameters has after one step. Most optimizers create it in their first step. The parameters must have gradients.

    The step is taken on fake tensors or, for an optimizer that reads values (Adafactor, ASGD), on copies.
    """
    def after(copy: Callable[[Tensor], Tensor]) -> dict[str, tuple[torch.Size, tuple[int, ...], torch.dtype]]:
        likes = {nn.Parameter(copy(parameter.detach())): parameter for parameter in trained}
        for like, parameter in likes.items():
            like.grad = None if parameter.grad is None else copy(parameter.grad)
        optimizer = build(list(likes))
        optimizer.step()
        held, _ = training_state(optimizer, None, {like: names[parameter] for like, parameter in likes.items()})
        return {name: (value.shape, value.stride(), value.dtype) for name, value in held.items()}

    from torch._subclasses.fake_tensor import (
        FakeTensorMode,  # takes a second to import; torch's optimizers import it too
    )

    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            found = after(torch.empty_like)
    except Exception:
        found = after(torch.clone)
    return {name: torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            for name, (shape, strides, dtype) in found.items()}


def restore_training(optimizer: torch.optim.Optimizer, scheduler: Any, names: Mapping[Tensor, str],
                     tensors: Mapping[str, Tensor], saved: Mapping[str, Any]) -> None:
    """Loads a saved state into an optimizer and a scheduler that were built from the config.

    torch's `load_state_dict` casts state to the type of its parameter, and replaces `state` and `param_groups`, to
    which an optimizer around this one may refer. So the state is put back as it was saved, in the same containers."""
    inner = optimizer_parts(optimizer)
    tensors = _placed(tensors, inner.values(), names)
    device = next((parameter.device for group in optimizer.param_groups for parameter in group["params"]), None)
    containers = [(vars(one).get("state"), vars(one).get("param_groups"), [*one.param_groups])
                  for one in inner.values()]
    for path, one in inner.items():
        _decode(one, saved["optimizer"][path], names, tensors, device)
    for one, (state, groups, each) in zip(inner.values(), containers, strict=True):
        if state is not None and one.state is not state:
            found = dict(one.state)
            state.clear()
            state.update(found)
            one.state = state
        if groups is not None and one.param_groups is not groups:
            for group, loaded in zip(each, one.param_groups, strict=True):
                group.update(loaded)
            groups[:], one.param_groups = each, groups
    if scheduler is not None:
        restore_object(scheduler, saved["scheduler"]["state"], tensors, device)


def optimizer_parts(optimizer: torch.optim.Optimizer) -> dict[str, torch.optim.Optimizer]:
    """The optimizer, as "", and those that it holds in attributes, by path: "base_optimizer", "parts/0"."""
    found: dict[str, torch.optim.Optimizer] = {}

    def visit(value: Any, path: str, deep: int) -> None:
        if isinstance(value, torch.optim.Optimizer):
            if all(value is not one for one in found.values()):
                found[path] = value
                for name, attribute in vars(value).items():
                    if name not in ("state", "param_groups"):
                        visit(attribute, f"{path}/{name}".lstrip("/"), 1)
        elif deep and isinstance(value, dict | list | tuple):
            for name, item in [*(value.items() if isinstance(value, dict) else enumerate(value))]:
                visit(item, f"{path}/{name}", 0)

    visit(optimizer, "", 1)
    return found


def _encode(encoder: Encoder, optimizer: torch.optim.Optimizer, path: str, names: Mapping[Tensor, str]) -> Any:
    """The state dict of an optimizer: `state` by the names of its parameters, the settings of its `groups`, the
    `other` items of its state, and the `rest`. One that does not have torch's form is all `rest`."""
    rest, address = dict(optimizer.state_dict()), f"optimizer/{path}".rstrip("/")
    numbers = _numbers(optimizer, names)
    if "state" not in rest or [number for group in rest.get("param_groups", []) for number in group["params"]] != [
            *range(len(numbers))]:
        return {"rest": encoder.encode(rest, address)}
    other, groups = dict(rest.pop("state")), rest.pop("param_groups")
    state = {name: encoder.encode(other.pop(number), name) for name, number in numbers.items() if number in other}
    plain = [{name: value for name, value in group.items() if name not in FROM_CONFIG}
             for group in groups]
    return {"state": state, "groups": encoder.encode(plain, f"{address}/groups"),
            "other": encoder.encode(other, f"{address}/state"), "rest": encoder.encode(rest, address)}


def _decode(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any], names: Mapping[Tensor, str],
            tensors: Mapping[str, Tensor], device: torch.device | None) -> None:
    """Loads what `_encode` returned. An optimizer of torch's own form gets its state as it is, after its own
    `load_state_dict` if it has one, which may do more. It keeps its own implementation of a step, because the state may
    have been saved on another device."""
    live = optimizer.state_dict()
    rest = decode(saved["rest"], tensors, live, device)
    if "groups" not in saved:
        optimizer.load_state_dict(rest)
        return
    groups = decode(saved["groups"], tensors, live["param_groups"], device)
    groups = [{name: value for name, value in group.items() if name not in IMPLEMENTATIONS}
              | {name: value for name, value in own.items() if name in NOT_SAVED}
              for group, own in zip(groups, live["param_groups"], strict=True)]
    numbers, kind = _numbers(optimizer, names), type(optimizer)
    state = {numbers[name]: decode(items, tensors) for name, items in saved["state"].items()}
    other = decode(saved["other"], tensors, live["state"], device)
    casts_only = kind.load_state_dict is torch.optim.Optimizer.load_state_dict
    optimizer.load_state_dict({**rest, "state": other if casts_only else state | other, "param_groups": groups})
    if kind.state_dict is torch.optim.Optimizer.state_dict:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        optimizer.state.update({parameters[number]: items for number, items in state.items()})


def _numbers(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, int]:
    """The number of each of an optimizer's parameters in torch's state dicts, by the parameter's name."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return {names.get(parameter, f"parameter {number}"): number for number, parameter in enumerate(parameters)}


def _placed(tensors: Mapping[str, Tensor], optimizers: Iterable[torch.optim.Optimizer], names: Mapping[Tensor, str]
            ) -> dict[str, Tensor]:
    """The tensors by address; those of a parameter on its device, and in its memory format if they have its shape. As
    in torch, step counters are on the CPU unless a kernel counts them."""
    by_name = {name: parameter for parameter, name in names.items()}
    counted_there = any(group.get("fused") or group.get("capturable") for one in optimizers
                        for group in one.param_groups)
    placed = dict(tensors)
    for address, value in tensors.items():
        parts = address.split("/")
        parameter = next((by_name[name] for name in ("/".join(parts[:length]) for length in range(1, len(parts)))
                          if name in by_name), None)
        if parameter is None:
            continue
        if value.shape == parameter.shape:
            like = torch.empty_like(parameter, dtype=value.dtype)
        else:
            like = torch.empty_like(value, device="cpu" if parts[-1] == "step" and not counted_there else
                                    parameter.device)
        placed[address] = like.copy_(value)
    return placed


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
    for name in sorted(name for name in {*expected, *found} if not is_extra_state(name)):
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


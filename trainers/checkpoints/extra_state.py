"""A module's extra state (`get_extra_state`) as tensors, so that a state dict holds nothing else.

    NAME._extra_state                   the value as JSON (codec.py), in UTF-8: uint8 [n]
    NAME._extra_state/scale             a tensor in it

Extra state that is one tensor stays as it is. Hooks of the module convert it, so nobody who saves, compares or loads a
state dict needs to know.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from drumbeat.trainers.checkpoints.codec import Encoder, UnsavableError, decode

KEY = "_extra_state"
"""The end of its name in a state dict (torch.nn.modules.module._EXTRA_STATE_KEY_SUFFIX)."""


def as_tensors(model: nn.Module) -> nn.Module:
    """The model, whose state dict holds its extra state as tensors; a value that a checkpoint cannot hold stays. Also
    for a module of which this was asked before."""
    for module in model.modules():
        if has_extra_state(module):
            module.register_state_dict_post_hook(_encode)
            module.register_load_state_dict_pre_hook(_decode)
    return model


def has_extra_state(module: nn.Module) -> bool:
    return type(module).get_extra_state is not nn.Module.get_extra_state


def is_extra_state(name: str) -> bool:
    """Whether an entry of a state dict is extra state. Its shape may change while the model is trained."""
    return name.partition("/")[0].replace(":", ".").rpartition(".")[2] == KEY  # "task:" begins the task's names


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Restores the extra state afterwards, as it was before."""
    restore = restorer(model)
    yield
    restore()


def restorer(model: nn.Module) -> Callable[[], None]:
    """A function that gives the model its present extra state again."""
    before = [(module, deepcopy(module.get_extra_state())) for module in model.modules() if has_extra_state(module)]

    def restore() -> None:
        for module, value in before:
            module.set_extra_state(deepcopy(value))

    return restore


def as_text(model: nn.Module) -> str:
    """All extra state of a model whose state dict holds tensors, as text; '' if it has none."""
    found = {name: value.contiguous() for name, value in model.state_dict().items() if is_extra_state(name)}
    return save(found).hex() if found else ""


def load_text(model: nn.Module, text: str) -> None:
    """Loads what `as_text` returned."""
    model.load_state_dict(load(bytes.fromhex(text)), strict=False)


def _encode(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    name, encoder = f"{prefix}{KEY}", Encoder()
    value = state[name]
    if isinstance(value, Tensor):
        return
    try:
        text = json.dumps(encoder.encode(value, "value")).encode()
    except UnsavableError:
        return
    state[name] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    state |= {f"{name}/{address}": one for address, one in encoder.tensors.items()}


def _decode(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    name = f"{prefix}{KEY}"
    tensors = {one.removeprefix(f"{name}/"): state.pop(one) for one in [*state] if one.startswith(f"{name}/")}
    like = module.get_extra_state()
    if isinstance(state.get(name), Tensor) and not isinstance(like, Tensor):
        state[name] = decode(json.loads(bytes(state[name].cpu().tolist())), tensors, like)

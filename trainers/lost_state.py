"""Differences between two objects that should be in the same state, attribute by attribute.

A run that was stopped and resumed should have the optimizer, scheduler and model of one that was not. What differs is
state that a checkpoint does not hold.
"""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator, Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from drumbeat.trainers.checkpoints.codec import BUILT

DEEPEST = 12
"""Attributes of attributes are followed so far."""

TRANSIENT = ("hook", "found_inf", "_opt_called", "defaults")
"""In names of attributes: torch's own, which do not change what is computed."""

LEAVES = (Tensor, bool, int, float, complex, str, set, frozenset, types.NoneType)
CONTAINERS = (Mapping, list, tuple, deque)
NOT_FOLLOWED = (type, nn.Module, *BUILT)


def differences(one: Any, other: Any, path: str, names: Mapping[Tensor, str] = MappingProxyType({}),
                other_names: Mapping[Tensor, str] = MappingProxyType({})) -> Iterator[str]:
    """A line for each tensor, number, text or container that differs, and for those that only one of the two has.
    `names` gives the parameters, which are keys of an optimizer's state, a name in both."""
    seen: set[int] = set()

    def walk(a: Any, b: Any, where: str, depth: int) -> Iterator[str]:
        if isinstance(a, LEAVES) or isinstance(b, LEAVES):
            if not _is_same(a, b):
                yield f"{where}: {_text(a)} without a stop, {_text(b)} after a resume"
        elif depth > DEEPEST or id(a) in seen or not (_is_followed(a) and type(a) is type(b)):
            return
        else:
            seen.add(id(a))
            mine, yours = (_items(value, known) for value, known in ((a, names), (b, other_names)))
            for key in dict.fromkeys([*mine, *yours]):
                place = f"{where}[{key!r}]" if isinstance(a, CONTAINERS) else f"{where}.{key}".lstrip(".")
                if key in mine and key in yours:
                    yield from walk(mine[key], yours[key], place, depth + 1)
                elif any(_is_state(side[key]) for side in (mine, yours) if key in side):
                    yield f"{place}: {'missing' if key in mine else 'only there'} after a resume"

    yield from walk(one, other, path, 0)


def model_differences(one: nn.Module, other: nn.Module) -> Iterator[str]:
    """The differences in attributes and buffers of the modules that are not in the model's `state_dict()`."""
    for (name, mine), yours in zip(one.named_modules(), other.modules(), strict=True):
        yield from differences(_outside_state_dict(mine), _outside_state_dict(yours), f"model.{name}".rstrip("."))


def _outside_state_dict(module: nn.Module) -> SimpleNamespace:
    kept = {name: value for name, value in vars(module).items() if name not in ("_parameters", "_modules", "_buffers")}
    return SimpleNamespace(**kept, **{name: module._buffers[name] for name in module._non_persistent_buffers_set})


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bytes; NaN equals NaN."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    plain = [value.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
    return torch.equal(*plain)


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return same_bits(one, other)
    return type(one) is type(other) and (one == other or (one != one and other != other))


def _items(value: Any, names: Mapping[Tensor, str]) -> dict[Any, Any]:
    """The items of a container, with the names of parameters in place of the parameters; the attributes of an
    object."""
    if isinstance(value, Mapping):
        return {names.get(key, "a parameter") if isinstance(key, Tensor) else key: item for key, item in value.items()}
    if isinstance(value, CONTAINERS):
        return dict(enumerate(value))
    return {name: item for name, item in vars(value).items() if not any(word in name for word in TRANSIENT)}


def _is_followed(value: Any) -> bool:
    """Whether a value has items or attributes that may be state. The model's modules are compared by themselves."""
    return isinstance(value, CONTAINERS) or (hasattr(value, "__dict__") and not isinstance(value, NOT_FOLLOWED))


def _is_state(value: Any) -> bool:
    """Whether a value that only one of two objects has is state: neither a function nor an empty container."""
    return (isinstance(value, LEAVES) and value is not None) or (isinstance(value, CONTAINERS) and len(value) > 0)


def _text(value: Any) -> str:
    if isinstance(value, Tensor) and value.numel() == 1:
        return f"{value.item():.6g}" if value.dtype.is_floating_point else str(value.item())
    if isinstance(value, Tensor):
        return f"another {str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    return f"{value!r:.40}" if isinstance(value, LEAVES) else type(value).__name__

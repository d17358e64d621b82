"""Nested state as JSON values and named tensors, and back, without pickle.

Numbers, text, lists and dicts with text keys are JSON. What JSON does not have is an object with one key:

    {"$tensor": ADDRESS}                    a tensor of that name in the safetensors file; `device` if not on the CPU
    {"$array": ADDRESS}                     a numpy array or scalar
    {"$tuple": [...]}, {"$set": [...]}      and the other CONTAINERS
    {"$dict": [[KEY, VALUE], ...]}          a dict with other keys, and the other MAPPINGS
    {"$complex": [REAL, IMAGINARY]}
    {"$state": VALUE}                       the state_dict() of an object, built from the config again
    {"$built": TYPE}                        a function or a class: the one that the config builds
"""

from __future__ import annotations

import types
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drumbeat.trainers.checkpoints.staging import NAMES

CONTAINERS: dict[str, Any] = {"$tuple": tuple, "$set": set, "$frozenset": frozenset, "$size": torch.Size}
MAPPINGS: dict[str, Any] = {"$dict": dict, "$Counter": Counter, "$OrderedDict": OrderedDict}
BUILT = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, torch.dtype,
         torch.device, weakref.ReferenceType)
"""What has no state that changes in training."""


class UnsavableError(TypeError):
    """A value that a checkpoint cannot hold; names it."""


class Encoder:
    """Encodes several values into one file of tensors. A tensor that occurs twice is stored once."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        """The tensors by address, not copied."""
        self._addresses: dict[int, str] = {}
        self._objects: dict[int, Any] = {}

    def encode(self, value: Any, address: str) -> Any:
        """A value as JSON. `address` names it, and begins the addresses of its tensors. Raises `UnsavableError`."""
        kind = type(value)
        if value is None or (isinstance(value, bool | int | float | str) and not isinstance(value, np.generic)):
            return value
        if isinstance(value, Tensor):
            return {"$tensor": self._tensor(value.detach() if isinstance(value, nn.Parameter) else value, address)} | (
                {} if value.device.type == "cpu" else {"device": value.device.type})
        if isinstance(value, np.ndarray | np.generic):
            return {"$array": self._tensor(torch.from_numpy(np.array(value)), address), "scalar": not np.ndim(value)}
        if kind is list:
            return self._items(value, address)
        if kind is deque:
            return {"$deque": [value.maxlen, self._items(value, address)]}
        for tag, container in CONTAINERS.items():
            if kind is container:
                return {tag: self._items(value, address)}
        if isinstance(value, Mapping):
            return self._mapping(value, address)
        if kind is complex:
            return {"$complex": [value.real, value.imag]}
        if isinstance(value, BUILT) or id(value) in self._objects:
            return {"$built": kind.__name__}
        if has_state(value):
            return {"$state": self.object(value, address)}
        raise UnsavableError(f"{address.replace('/', '.')} is of type {kind.__module__}.{kind.__qualname__}, which a "
                             "checkpoint cannot hold")

    def object(self, value: Any, address: str) -> Any:
        """The state of an object: its `state_dict()` or, without one, its attributes."""
        self._objects[id(value)] = value
        return self.encode(state_of(value), address)

    def know(self, *objects: Any) -> None:
        """Objects that are saved elsewhere, so that references to them are not followed."""
        self._objects |= {id(one): one for one in objects}

    def _items(self, values: Any, address: str) -> list[Any]:
        return [self.encode(item, f"{address}/{number}") for number, item in enumerate(values)]

    def _mapping(self, value: Mapping[Any, Any], address: str) -> Any:
        pairs = [(key, self.encode(item, f"{address}/{key}")) for key, item in value.items()]
        tag = next((tag for tag, kind in MAPPINGS.items() if type(value) is kind), "$dict")
        if tag == "$dict" and all(type(key) is str and not key.startswith("$") for key, _ in pairs):
            return dict(pairs)
        return {tag: [[self.encode(key, f"{address}/key"), item] for key, item in pairs]}

    def _tensor(self, value: Tensor, address: str) -> str:
        if id(value) in self._addresses:
            return self._addresses[id(value)]
        if value.dtype not in NAMES or value.layout != torch.strided:
            kind = value.dtype if value.layout == torch.strided else value.layout
            raise UnsavableError(f"{address.replace('/', '.')} is a tensor of {kind}, which a checkpoint cannot hold")
        free = next(name for name in _variants(address) if name not in self.tensors)
        self.tensors[free], self._addresses[id(value)] = value, free
        return free


def decode(value: Any, tensors: Mapping[str, Tensor], like: Any = None, device: torch.device | None = None) -> Any:
    """The value that was encoded. `like` is the same value of the object that is restored: it has the functions and
    the objects, and its tensors say on which device a tensor belongs; without it, tensors that were on a GPU are put on
    `device`."""
    if isinstance(value, list):
        return [decode(item, tensors, _within(like, number), device) for number, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    tag = next(iter(value), "")
    if not tag.startswith("$"):
        plain = {key: decode(item, tensors, _within(like, key), device) for key, item in value.items()}
        return type(like)(like.default_factory, plain) if hasattr(like, "default_factory") else plain
    inner = value[tag]
    match tag:
        case "$tensor":
            place = like.device if isinstance(like, Tensor) else device if "device" in value else None
            return tensors[inner] if place is None else tensors[inner].to(place)
        case "$array":
            array = tensors[inner].numpy()
            return array[()] if value["scalar"] else array.copy()
        case "$complex":
            return complex(*inner)
        case "$deque":
            return deque(decode(inner[1], tensors, like, device), maxlen=inner[0])
        case "$state":
            restore_object(like, inner, tensors, device)
            return like
        case "$built" if like is not None:
            return like
        case "$built":
            raise UnsavableError(f"a {inner} was in the saved state, and the config builds none in its place")
    if tag in MAPPINGS:
        keys = [decode(key, tensors) for key, _ in inner]
        items = [decode(item, tensors, _within(like, key), device) for key, (_, item) in zip(keys, inner, strict=True)]
        return MAPPINGS[tag](dict(zip(keys, items, strict=True)))
    return CONTAINERS[tag](decode(inner, tensors, like, device))


def restore_object(value: Any, saved: Any, tensors: Mapping[str, Tensor], device: torch.device | None = None) -> None:
    """Loads the state of an object that was built from the config."""
    found = decode(saved, tensors, state_of(value), device)
    if has_state(value):
        value.load_state_dict(found)
    else:
        vars(value).update(found)


def has_state(value: Any) -> bool:
    """Whether an object tells its state."""
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def state_of(value: Any) -> Any:
    """What an object tells about its state; its attributes if it tells nothing."""
    return value.state_dict() if has_state(value) else vars(value)


def _within(like: Any, key: Any) -> Any:
    """The item of a container at a key or an index; None if there is none."""
    try:
        return like[key]
    except (TypeError, KeyError, IndexError):
        return None


def _variants(address: str) -> Iterator[str]:
    """The address, and others if it is taken."""
    yield address
    yield from (f"{address}#{number}" for number in count(2))

"""The structure of samples and batches: what is input and what is target, collating, and the rows of a batch.

A sample may be a pair (input, target), a longer tuple, a dict, a named tuple or a dataclass, and its parts may be
nested in the same way. In a batch these are structures of parts, each with a row for each sample; a list holds one item
for each sample, for example images of different sizes.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import default_collate

from drumbeat.data.cache import Pixels

TARGETS = ("target", "targets", "label", "labels")
"""The names of targets in dicts, named tuples and dataclasses."""

NEEDED = ("a sample must be (input, target), a longer tuple whose last item is the target, or a dict, named tuple or "
          f"dataclass with the target under one of these names: {', '.join(TARGETS)} (rename it in the dataset, or "
          "in a data.collate_fn)")


def split(value: Any) -> tuple[Any, Any]:
    """Input and target of a sample, or inputs and targets of a batch.

    In a dict, a named tuple or a dataclass, the target is what has a name of `TARGETS`, and the rest is the input;
    otherwise the last item of a tuple or a list is the target. An input of one part is that part itself; one of several
    is a tuple of the items, or a dict of what has names. Raises `TypeError` if there is no input or no target.
    """
    if type(value) is tuple and len(value) == 2:
        return value
    inputs, targets = _sides(value)
    parts = _parts(value)
    return _joined(parts, inputs), _joined(parts, targets)


def with_sides(value: Any, inputs: Any, targets: Any) -> Any:
    """The sample with another input and target, of the same structure as those that `split` returns."""
    if type(value) is tuple and len(value) == 2:
        return inputs, targets
    new = dict(_parts(value))
    for names, side in zip(_sides(value), (inputs, targets), strict=True):
        new |= {names[0]: side} if len(names) == 1 else dict(zip(names, _parts(side).values(), strict=True))
    return _rebuilt(value, new)


def _sides(value: Any) -> tuple[list[Any], list[Any]]:
    """The names of the input's parts and of the target's."""
    names = list(_parts(value)) if _is_structure(value) else []
    targets = [name for name in names if name in TARGETS]
    if not targets and isinstance(value, tuple | list):
        targets = names[-1:]
    inputs = [name for name in names if name not in targets]
    if not inputs or not targets:
        raise TypeError(f"{NEEDED}; this one is {describe(value)}")
    return inputs, targets


def _joined(parts: Mapping[Any, Any], names: Sequence[Any]) -> Any:
    if len(names) == 1:
        return parts[names[0]]
    chosen = {name: parts[name] for name in names}
    return tuple(chosen.values()) if isinstance(names[0], int) else chosen


def collate(samples: list[Any]) -> Any:
    """A batch of samples that have the same structure. torch's `default_collate` stacks tensors, arrays and numbers,
    and makes a list of texts; PIL images are stacked as uint8 [n, C, H, W]; tuples stay tuples. Raises `TypeError` for
    other objects, `RuntimeError` for tensors of different shapes, and `ValueError` for different structures."""
    first = samples[0]
    if isinstance(first, Image.Image):
        return default_collate([as_tensor(image) for image in samples])
    if isinstance(first, Tensor) and type(first) is not Tensor:  # torchvision's tv_tensors
        return default_collate([one.as_subclass(Tensor) for one in samples])
    if isinstance(first, Tensor) or not _is_structure(first):
        return default_collate(samples)
    if {*map(type, samples)} == {tuple} and len({*map(len, samples)}) == 1:
        return tuple(collate(list(column)) for column in zip(*samples, strict=True))
    parts = [_parts(sample) if type(sample) is type(first) else {} for sample in samples]
    names = parts[0].keys()
    for sample, one in zip(samples, parts, strict=True):
        if one.keys() != names:
            raise ValueError(f"the structure {describe(sample)} differs from {describe(first)}")
    return _rebuilt(tuple(first) if isinstance(first, list) else first,
                    {name: collate([one[name] for one in parts]) for name in names})


def mapped(function: Callable[[Any], Any], value: Any, whole: str = "") -> Any:
    """The value with `function` applied to all parts that are not structures themselves, or that have an attribute
    `whole`."""
    if isinstance(value, Tensor) or (whole and hasattr(value, whole)) or not _is_structure(value):
        return function(value)
    return _rebuilt(value, {name: mapped(function, part, whole) for name, part in _parts(value).items()})


def leaves(value: Any) -> Iterator[Any]:
    """The parts that are not structures themselves."""
    if isinstance(value, Tensor) or not _is_structure(value):
        yield value
    else:
        for part in _parts(value).values():
            yield from leaves(part)


def rows(values: Any, part: range, size: int) -> Any:
    """The samples `part` of a batch of `size` samples: rows of its tensors and arrays, and items of its lists. Single
    values, and tensors without dimensions, belong to all samples. Raises `TypeError` for what cannot be cut."""
    if len(part) == size:
        return values
    if isinstance(values, Tensor | np.ndarray | list):
        return values if not isinstance(values, list) and not values.ndim else values[part.start:part.stop]
    if _is_structure(values):
        return _rebuilt(values, {name: rows(value, part, size) for name, value in _parts(values).items()})
    if isinstance(values, SINGLE):
        return values
    raise TypeError(f"a {type(values).__name__} cannot be cut into rows")


def item(values: Any, index: int) -> Any:
    """One sample of a batch: a row of its tensors and arrays, and an item of its lists, in the same structure."""
    if isinstance(values, Tensor | np.ndarray | list):
        return values[index] if isinstance(values, list) or values.ndim else values
    if _is_structure(values):
        return _rebuilt(values, {name: item(value, index) for name, value in _parts(values).items()})
    return values


SINGLE = (bool, int, float, complex, str, bytes, np.generic, type(None))


def uncut(values: Any, size: int) -> str:
    """What in a batch of `size` samples has not one row for each of them, so that `rows` must not cut it; '' if
    nothing."""
    return next(_uncut(values, size, ""), "")


def _uncut(values: Any, size: int, where: str) -> Iterator[str]:
    if isinstance(values, Tensor | np.ndarray | list):
        if (isinstance(values, list) or values.ndim) and len(values) != size:
            yield f"{where or 'it'} is {describe(values)}"
    elif _is_structure(values):
        for name, value in _parts(values).items():
            yield from _uncut(value, size, f"{where}[{name!r}]")
    elif not isinstance(values, SINGLE):
        yield f"{where or 'it'} is of type {type(values).__name__}"


def _is_structure(value: Any) -> bool:
    return isinstance(value, tuple | Mapping | list) or (is_dataclass(value) and not isinstance(value, type))


def _parts(value: Any) -> Mapping[Any, Any]:
    """The parts of a structure by name; of a tuple or a list by number."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, tuple | list):
        return dict(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _rebuilt(value: Any, parts: Mapping[Any, Any]) -> Any:
    """A structure like `value` with other parts; a mapping of any type becomes a dict, unless its parts are attributes
    too, as those of Hugging Face's outputs are."""
    if isinstance(value, MutableMapping) and is_dataclass(value):
        new: Any = copy.copy(value)
        for name, part in parts.items():  # those outputs forbid update()
            new[name] = part
        return new
    if isinstance(value, Mapping):
        return dict(parts)
    if isinstance(value, tuple | list):
        return type(value)(*parts.values()) if hasattr(value, "_fields") else type(value)(parts.values())
    new = copy.copy(value)
    for name, part in parts.items():
        object.__setattr__(new, name, part)  # the dataclass may be frozen
    return new


def describe(value: Any) -> str:
    """The structure of a value, in about a line: {'image': uint8 [1, 8, 8], 'label': int}."""
    if isinstance(value, Tensor | np.ndarray):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if not _is_structure(value):
        return type(value).__name__
    if isinstance(value, list):
        return f"a list of {len(value)}" + (f": {describe(value[0])}, ..." if value else "")
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return f"({', '.join(map(describe, value))})"
    inner = ", ".join(f"{name!r}: {describe(part)}" for name, part in _parts(value).items())
    return ("" if isinstance(value, dict) else type(value).__name__) + f"{{{inner}}}"


def odd_one(samples: Sequence[Any]) -> tuple[int, str]:
    """The number of the first sample whose structure is not that of most samples, and what it is; -1 and '' without
    one."""
    kinds = [*map(describe, samples)]
    common, times = Counter(kinds).most_common(1)[0]
    if 2 * times > len(kinds) > times:
        number = next(number for number, kind in enumerate(kinds) if kind != common)
        return number, f"{_returned(samples[number])}, and for most samples {common}; "
    return (0, f"{_returned(None)}; ") if samples[0] is None else (-1, "")


def _returned(sample: Any) -> str:
    return f"`__getitem__` returned {'None' if sample is None else describe(sample)}"


def as_tensor(image: Image.Image) -> Tensor:
    """A PIL image as uint8 [C, H, W]."""
    return pixels_as_tensor(np.array(image))


def pixels_as_tensor(pixels: Pixels) -> Tensor:
    """Pixels [H, W] or [H, W, C] as [C, H, W], without a copy if possible."""
    values = np.require(pixels, requirements=["C", "W"])
    return torch.from_numpy(values[None] if values.ndim == 2 else np.ascontiguousarray(values.transpose(2, 0, 1)))


def stacked(values: Sequence[Any]) -> Tensor | None:
    """Pixels [H, W] or [H, W, C] as one tensor [n, C, H, W]; None unless all are arrays of one shape and type."""
    first = values[0]
    if not all(isinstance(one, np.ndarray) and (one.shape, one.dtype) == (first.shape, first.dtype) for one in values):
        return None
    whole = np.stack(values)
    return torch.from_numpy(whole[:, None] if whole.ndim == 3 else np.ascontiguousarray(whole.transpose(0, 3, 1, 2)))


def is_spatial(target: Any) -> bool:
    """Whether a target is tied to places in the input: torchvision's masks and boxes (`torchvision.tv_tensors`)."""
    if isinstance(target, (int, Tensor)):
        return isinstance(target, Tensor) and type(target) is not Tensor
    return _is_structure(target) and any(map(is_spatial, _parts(target).values()))

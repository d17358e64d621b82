"""Layers of values -> a schema's object: types, missing keys, bounds and references checked, all at once."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.configs.faults import misfit, missing, out_of_bounds, unresolved
from drumbeat.configs.layers import Layer, leaves, nest, overlay, parent
from drumbeat.configs.yaml_text import inline

PATH_ARGUMENTS = ("root", "folder", "path", "file")
"""Arguments of targets with these names, or ending in _ and one of them, are paths."""

MISFIT = (OmegaConfBaseException, TypeError, ValueError)
"""What OmegaConf raises for a value that its key cannot have."""

REFERENCES = re.compile(r"(?:[^$]*\$\{[^:{}]+\})+[^$]*")
"""A text with references to other keys, and no others."""

Schema = TypeVar("Schema")
Places = Mapping[str, Layer]
"""The layer of each leaf that is not a default."""


def build(schema: type[Schema], layers: Sequence[Layer]) -> tuple[Schema, Places]:
    """The schema's object with all layers over its defaults, and the layer of each value that one gave.

    Relative paths become absolute, taken from the current folder. Raises `ConfigError` with every fault.
    """
    values, places = overlay(layers)
    merged, faults = _merge(schema, values, places, layers)
    try:
        faults += [*_missing(schema, merged, faults, places, layers), *_out_of_bounds(schema, merged, places, layers)]
        built = None if faults else OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", ""))
        faults.append(unresolved(error, source(key, places, layers), key))
    if faults:
        raise ConfigError(*sorted(dict.fromkeys(faults), key=lambda fault: _in_order(fault, layers)))
    return typing.cast(Schema, _absolute_paths(built)), places


def source(key: str, places: Places, layers: Sequence[Layer]) -> str:
    """The source of a leaf, of an item in a list, or of a section as its topmost layer has it; '' for a default."""
    inside = [layer for leaf, layer in places.items() if leaf.startswith(f"{key}.")]
    if inside:
        return max(inside, key=layers.index).where(key)
    leaf = key
    while leaf and leaf not in places:
        leaf = parent(leaf)
    return places[leaf].where(key) if leaf else ""


def references(layers: Sequence[Layer]) -> dict[str, str]:
    """What the layers give as references to other keys, ${key}, by dotted key; those to the environment are none."""
    given = leaves(overlay(layers)[0])
    return {key: value for key, value in given if isinstance(value, str) and REFERENCES.fullmatch(value)}


def with_references(values: dict[str, Any], written: Mapping[str, str]) -> dict[str, Any]:
    """Resolved values, changed in place: those that were written as references are so again, where that still says the
    same."""
    resolved = {key: value for key, value in leaves(values) if key in written}
    for key in resolved:
        _set(values, key, written[key])
    known = OmegaConf.create(values)
    for key, value in resolved.items():
        if OmegaConf.select(known, key) != value:
            _set(values, key, value)
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *above, name = key.split(".")
    for part in above:
        values = values.get(part, {})
    if name in values:  # or a name has a dot in it: then it stays as it is
        values[name] = value


def _merge(schema: type, values: dict[str, Any], places: Places, layers: Sequence[Layer]) -> tuple[Any, list[Fault]]:
    """The schema's defaults with `values` over them, and what of `values` does not fit."""
    merged: Any = OmegaConf.structured(schema)
    try:
        return OmegaConf.merge(merged, values), []
    except MISFIT as error:
        first = str(error).splitlines()[0]
    misfits: list[tuple[str, Any]] = []
    merged = _merge_what_fits(merged, values, misfits)
    misfits.sort(key=lambda leaf: layers.index(places[leaf[0]]))
    faults = [_elsewhere(misfit(schema, places[key], key, value), key, values) for key, value in misfits]
    return merged, faults or [Fault(what=first, where=layers[-1].origin)]


def _elsewhere(fault: Fault, key: str, values: dict[str, Any]) -> Fault:
    """An unknown key that has no near relation where it stands, with the keys of that name that there are."""
    name = key.rpartition(".")[2]
    found = [known for known, _ in leaves(values) if known.endswith(f".{name}") and known != key]
    if not found or not fault.what.startswith("unknown key") or fault.remedy.startswith("Did"):
        return fault
    return dataclasses.replace(fault, remedy=f"Did you mean {' or '.join(repr(known) for known in found[:3])}?")


def _merge_what_fits(merged: Any, values: Mapping[str, Any], misfits: list[tuple[str, Any]], prefix: str = "") -> Any:
    """Section by section, and a section that does not fit key by key; the leaves that do not fit go to `misfits`."""
    for name, value in values.items():
        key = f"{prefix}{name}"
        try:
            merged = OmegaConf.merge(merged, nest(key, value))
        except MISFIT:
            if isinstance(value, dict) and value:
                merged = _merge_what_fits(merged, value, misfits, f"{key}.")
            else:
                misfits.append((key, value))
    return merged


def _missing(schema: type, merged: Any, found: Sequence[Fault], places: Places,
             layers: Sequence[Layer]) -> Iterator[Fault]:
    """Keys that have no default and were not given, unless `found` tells of them already."""
    files = [layer.origin for layer in layers if layer.lines] or [layers[0].origin]
    for key in sorted(OmegaConf.missing_keys(merged)):
        if not any(key in fault.what for fault in found):
            fault = missing(schema, key, source(parent(key) if "." in key else key, places, layers) or files[-1])
            if key.startswith("phases."):  # a new phase, or an old one's name misspelt
                names = ", ".join(map(str, merged.phases))
                fault = dataclasses.replace(fault, remedy=f"{fault.remedy} The phases of this config: {names}.")
            yield fault


def _out_of_bounds(schema: type, merged: Any, places: Places, layers: Sequence[Layer]) -> Iterator[Fault]:
    for key, bound, value in out_of_bounds(schema, merged):
        yield Fault(what=f"{key} must be {bound}", where=source(key, places, layers), given=f"{key}: {inline(value)}")


def _in_order(fault: Fault, layers: Sequence[Layer]) -> tuple[int, int]:
    """Sorts faults as the sources are read: by layer, then by line."""
    origin, _, line = fault.where.rpartition(":")
    order = [layer.origin for layer in layers]
    if origin in order and line.isdigit():
        return order.index(origin), int(line)
    return (order.index(fault.where) if fault.where in order else -1), 0


def _absolute_paths(node: Any, in_target: bool = False) -> Any:
    """The same tree with the path arguments of targets made absolute from the current folder."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        paths = {field.name for field in dataclasses.fields(node) if field.metadata.get("path")}
        return dataclasses.replace(node, **{
            name: _absolute(value) if name in paths and value else _absolute_paths(value)
            for name, value in vars(node).items()})
    if isinstance(node, list):
        return [_absolute_paths(item, in_target) for item in node]
    if not isinstance(node, dict):
        return node
    in_target = in_target or "_target_" in node
    return {key: _absolute(value) if in_target and is_path(key, value)
            else _absolute_paths(value, in_target) for key, value in node.items()}


def _absolute(path: str) -> str:
    """From the current folder; a path that begins with a $VARIABLE waits for the machine that uses it."""
    return path if path.startswith("$") else str(Path(path).expanduser().absolute())


def is_path(key: Any, value: Any) -> bool:
    """Whether an argument of a target is a path."""
    if not isinstance(value, str) or value == "" or "://" in value:
        return False
    looks_like_one = value.endswith((".pth", ".pt", ".safetensors"))
    return str(key).split("_")[-1] in PATH_ARGUMENTS or (key == "weights" and looks_like_one)

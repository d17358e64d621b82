"""Layers of values -> an object of the schema. Types, missing keys, bounds and references are all checked at once."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from drumbeat.configs.bounds import ExpansionError, check_references
from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.configs.faults import broken_reference, misfit, missing, misspelt_targets, out_of_bounds
from drumbeat.configs.layers import Layer, leaves, nest, overlay, parent
from drumbeat.configs.phase_values import misplaced
from drumbeat.configs.schema import Config
from drumbeat.configs.source_text import as_written
from drumbeat.configs.variables import recorded, unresolved
from drumbeat.configs.yaml_text import inline

PATH_ARGUMENTS = ("root", "folder", "path", "file")
"""Arguments of targets are paths if their name is one of these, or ends in _ and one of these."""

MISFIT = (OmegaConfBaseException, TypeError, ValueError)
"""What OmegaConf raises for a value that does not fit its key."""

REFERENCES = re.compile(r"(?:[^$]*\$\{[^:{}]+\})+[^$]*")
"""A text with references to other keys, and no other references."""

MOST_MISFITS = 50
"""How many values that do not fit are reported: each takes some milliseconds."""

Schema = TypeVar("Schema")
Places = Mapping[str, Layer]
"""The layer of each leaf that is not a default."""


def build(schema: type[Schema], layers: Sequence[Layer], *, record: bool = False) -> tuple[Schema, Places]:
    """The schema's object with all layers on top of its defaults, and the layer of each value that is not a default.

    Relative paths are resolved against the current folder. With `record`, environment variables are read as a run that
    is submitted records them (`variables.py`); otherwise nothing but references to other keys is resolved. Raises
    `ConfigError` with all faults.
    """
    values, places = overlay(layers)
    for key, value in list(as_written(schema, values, places)):
        _set(values, key, value)
    if record and (faults := [*misplaced(values)]):
        raise ConfigError(*(dataclasses.replace(fault, where=_place(fault.where, places, layers)) for fault in faults))
    unset: list[Fault] = []
    values = recorded(values, schema, "", partial(_is_recorded, schema), unset) if record else unresolved(values)
    try:
        check_references(values)
    except ExpansionError as error:
        raise ConfigError(Fault(what=f"{error.key or 'the config'}: {error}", remedy="Refer to fewer other keys.",
                                where=source(error.key, places, layers) or layers[-1].origin)) from None
    merged, faults = _merge(schema, values, places, layers)
    if len(faults) >= MOST_MISFITS:
        raise ConfigError(*faults)
    faults += [dataclasses.replace(fault, where=source(fault.where, places, layers)) for fault in unset]
    faults += [Fault(what=f"{parent(key)} has no _target_", where=source(key, places, layers),
                     given=f"{key.rpartition('.')[2]}: {value}", remedy="Did you mean '_target_'?")
               for key, value in misspelt_targets(values)]
    try:
        faults += [*_missing(schema, merged, faults, places, layers), *_out_of_bounds(schema, merged, places, layers)]
        built = None if faults else OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", ""))
        faults.append(broken_reference(error, source(key, places, layers), key))
    if faults:
        raise ConfigError(*sorted(dict.fromkeys(faults), key=lambda fault: _in_order(fault, layers)))
    return typing.cast(Schema, _absolute_paths(built)), places


def source(key: str, places: Places, layers: Sequence[Layer]) -> str:
    """The source of a leaf or list item, or the source of the topmost value in a section; '' for a default."""
    inside = [layer for leaf, layer in places.items() if leaf.startswith(f"{key}.")]
    if inside:
        return max(inside, key=layers.index).where(key)
    leaf = key
    while leaf and leaf not in places:
        leaf = parent(leaf)
    return places[leaf].where(key) if leaf else ""


def _place(key: str, places: Places, layers: Sequence[Layer]) -> str:
    """The source of a key, and the key itself."""
    return f"{source(key, places, layers)} ({key})"


def references(layers: Sequence[Layer]) -> dict[str, str]:
    """The values that are written as references to other keys, ${KEY}, by dotted key; not those to the environment."""
    given = leaves(overlay(layers)[0])
    return {key: value for key, value in given if isinstance(value, str) and REFERENCES.fullmatch(value)}


def with_references(values: dict[str, Any], written: Mapping[str, str]) -> dict[str, Any]:
    """Resolved values, changed in place: a value that was written as a reference becomes one again if the reference
    still gives the same value."""
    resolved = {key: value for key, value in leaves(values) if key in written}
    for key in resolved:
        _set(values, key, written[key])
    known = OmegaConf.create(unresolved(values))
    for key, value in resolved.items():
        if OmegaConf.select(known, key) != value:
            _set(values, key, value)
    return values


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    *above, name = key.split(".")
    for part in above:
        values = values.get(part, {})
    if name in values:  # it is not if a name contains a dot
        values[name] = value


def _merge(schema: type, values: dict[str, Any], places: Places, layers: Sequence[Layer]) -> tuple[Any, list[Fault]]:
    """The schema's defaults with `values` on top, and the faults of values that do not fit."""
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
    """The fault of an unknown key. If no similar key is valid there, its remedy names keys of that name elsewhere."""
    name = key.rpartition(".")[2]
    found = [known for known, _ in leaves(values) if known.endswith(f".{name}") and known != key]
    if not found or not fault.what.startswith("unknown key") or fault.remedy.startswith("Did"):
        return fault
    return dataclasses.replace(fault, remedy=f"Did you mean {' or '.join(repr(known) for known in found[:3])}?")


def _merge_what_fits(merged: Any, values: Mapping[str, Any], misfits: list[tuple[str, Any]], prefix: str = "") -> Any:
    """Merges section by section, and a section that does not fit key by key. Adds leaves that do not fit to `misfits`.
    """
    for name, value in values.items():
        key = f"{prefix}{name}"
        if len(misfits) == MOST_MISFITS:
            break
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
    """Required keys that were not given, unless a fault in `found` already names them."""
    files = [layer.origin for layer in layers if layer.lines] or [layers[0].origin]
    for key in sorted(OmegaConf.missing_keys(merged)):
        if not any(key in fault.what for fault in found):
            fault = missing(schema, key, source(parent(key) if "." in key else key, places, layers) or files[-1])
            if key.startswith("phases."):  # a new phase, or a misspelt name
                names = ", ".join(map(str, merged.phases))
                fault = dataclasses.replace(fault, remedy=f"{fault.remedy} The phases of this config: {names}.")
            yield fault


def _out_of_bounds(schema: type, merged: Any, places: Places, layers: Sequence[Layer]) -> Iterator[Fault]:
    for key, bound, value, remedy in out_of_bounds(schema, merged):
        yield Fault(what=f"{key} must be {bound}", where=source(key, places, layers), given=f"{key}: {inline(value)}",
                    remedy=remedy)


def _in_order(fault: Fault, layers: Sequence[Layer]) -> tuple[int, int]:
    """The sorting key of a fault: by layer, then by line."""
    origin, _, line = fault.where.rpartition(":")
    order = [layer.origin for layer in layers]
    if origin in order and line.isdigit():
        return order.index(origin), int(line)
    return (order.index(fault.where) if fault.where in order else -1), 0


def _absolute_paths(node: Any, in_target: bool = False) -> Any:
    """The same tree with the path arguments of targets made absolute."""
    if dataclasses.is_dataclass(node) and not isinstance(node, type):
        paths = {field.name for field in dataclasses.fields(node) if field.metadata.get("path")}
        return dataclasses.replace(node, **{
            name: _absolute(value) if value and (name in paths or is_path(name, value)) else _absolute_paths(value)
            for name, value in vars(node).items()})
    if isinstance(node, list):
        return [_absolute_paths(item, in_target) for item in node]
    if not isinstance(node, dict):
        return node
    in_target = in_target or "_target_" in node
    return {key: _absolute(value) if in_target and is_path(key, value)
            else _absolute_paths(value, in_target) for key, value in node.items()}


def _absolute(path: str) -> str:
    """An absolute path. A path that begins with a $VARIABLE is left to the machine that uses it. Raises `ConfigError`
    for ~ without a home folder."""
    try:
        return path if path.startswith("$") else str(Path(path).expanduser().absolute())
    except RuntimeError:
        raise ConfigError(Fault(what="the home folder of a path is unknown", given=path,
                                remedy="Set HOME, or write the whole path.")) from None


def _is_recorded(schema: type, name: str, text: str) -> bool:
    """Whether a text that refers to environment variables is recorded with their values: paths and targets, and all of
    a profile."""
    return schema is not Config or name == "_target_" or is_path(name, text)


def is_path(key: Any, value: Any) -> bool:
    """Whether an argument of a target is a path."""
    if not isinstance(value, str) or value == "" or "://" in value:
        return False
    looks_like_one = value.endswith((".pth", ".pt", ".safetensors", ".ckpt", ".bin"))
    return str(key).split("_")[-1] in PATH_ARGUMENTS or (key == "weights" and looks_like_one)

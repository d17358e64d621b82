"""The faults of a config as text: an unknown key, a value of the wrong type, a number out of bounds."""

from __future__ import annotations

import dataclasses
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from drumbeat.configs.errors import Fault, nearest
from drumbeat.configs.fields import MISSING
from drumbeat.configs.layers import Layer
from drumbeat.configs.yaml_text import inline

TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
PLAIN_NAME = re.compile(r"\w[\w.-]*")
PLAIN_NAME_RULE = "a plain name: letters, digits, '_', '-' and '.', starting with a letter or digit"
MISSPELT_TARGET = ("target", "_target", "target_")


def misfit(schema: type, layer: Layer, key: str, value: Any) -> Fault:
    """Why `key: value` does not fit the schema."""
    kind: Any = schema
    metadata: typing.Mapping[str, Any] = {}
    done: list[str] = []
    given = f"{key}: {inline(value)}"
    for part in key.split("."):
        fields = fields_of(kind)
        if fields is not None and part not in fields:
            place = f"in '{'.'.join(done)}'" if done else "at the top level"
            return Fault(what=f"unknown key '{part}' {place}", where=layer.where(".".join([*done, part])), given=given,
                         remedy=_instead(part, [*done], fields))
        metadata = metadata_of(kind, part)
        kind = fields[part] if fields is not None else item_of(kind)
        done.append(part)
        if fields_of(kind) is None and not is_mapping(kind):
            break
    name = ".".join(done)
    if kind is Any:  # it takes anything, so this can only be a ${...} that OmegaConf cannot read
        return Fault(what=f"{name} has a reference that cannot be parsed", where=layer.where(key), given=given,
                     remedy="Write ${some.key} or ${oc.env:VARIABLE}, in single quotes for the shell.")
    if metadata.get("minutes"):
        return Fault(what=f"{name} must be a number of minutes, or a time as SLURM writes it", where=layer.where(key),
                     given=given, remedy="Half a day, for example, is 720, 12:00:00 or 0-12.")
    return Fault(what=f"{name} must be {expected(kind)}", where=layer.where(key), given=given,
                 remedy=_reshaped(kind, name, value))


def missing(schema: type, key: str, where: str) -> Fault:
    """A required key that was not given."""
    kind: Any = schema
    for part in key.split("."):
        fields = fields_of(kind)
        kind = fields[part] if fields is not None else item_of(kind)
    return Fault(what=f"'{key}' is missing", where=where, remedy=f"It must be {expected(kind)}.")


def broken_reference(error: OmegaConfBaseException, where: str, key: str) -> Fault:
    """A reference, ${...}, to something that does not exist."""
    message = str(error).splitlines()[0].removeprefix("KeyError raised while resolving interpolation: ").strip('"')
    variable = re.search(r"Interpolation key '([A-Z][A-Z0-9_]*)' not found", message)
    return Fault(what=f"{key} refers to something that does not exist: {message}", where=where,
                 remedy=f"An environment variable is written ${{oc.env:{variable[1]}}}." if variable else "")


def out_of_bounds(schema: type, node: Any, prefix: str = "") -> Iterator[tuple[str, str, Any, str]]:
    """(dotted key, the bound as text, the value, what to write instead) of each value that violates its field's
    metadata."""
    kinds = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key, kind = prefix + field.name, kinds[field.name]
        value = None if OmegaConf.is_missing(node, field.name) else node[field.name]
        if value is None:
            continue
        if fields_of(kind):
            yield from out_of_bounds(bare(kind), value, f"{key}.")
        elif is_mapping(kind) and fields_of(item_of(kind)):
            for name in value:
                if not PLAIN_NAME.fullmatch(str(name)) or "." in str(name):
                    yield key, f"named with letters, digits, '_' and '-'; not '{name}'", list(value), ""
                elif value[name] is not None:
                    yield from out_of_bounds(bare(item_of(kind)), value[name], f"{key}.{name}.")
        elif bound := _broken_bound(field.metadata, value):
            yield key, bound, value, _unset(field, kind)


def misspelt_targets(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, value) of each `target: package.module.Name` in a section without `_target_`."""
    if isinstance(node, dict):
        for name, value in node.items():
            inner = f"{key}.{name}" if key else str(name)
            if name in MISSPELT_TARGET and "_target_" not in node and isinstance(value, str) and "." in value:
                yield inner, value
            yield from misspelt_targets(value, inner)
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from misspelt_targets(value, f"{key}[{number}]")


def expected(kind: Any) -> str:
    """The values that a type takes, as text."""
    plain = bare(kind)
    words = [str(word) for option in typing.get_args(kind) if typing.get_origin(option) is Literal and option != plain
             for word in typing.get_args(option)]
    if typing.get_origin(plain) is Literal:
        text = "one of " + ", ".join(map(str, typing.get_args(plain)))
    elif typing.get_origin(plain) is list:
        text = "a list of numbers" if typing.get_args(plain) == (float,) else "a list"
    elif fields := fields_of(plain):
        text = f"a section with some of: {', '.join(fields)}"
    elif is_mapping(plain):
        text = "a section: `_target_: package.module.Name` and its arguments" if item_of(plain) is Any else "a section"
    else:
        text = TYPES.get(plain, "a value")
    *others, last = [text, *words, *(["null"] if plain is not kind else [])]
    return f"{', '.join(others)} or {last}" if others else last


def fields_of(kind: Any) -> dict[str, Any] | None:
    """The field types of a dataclass, also of an Optional one; None for other types."""
    plain = bare(kind)
    return typing.get_type_hints(plain) if dataclasses.is_dataclass(plain) and isinstance(plain, type) else None


def metadata_of(kind: Any, name: str) -> typing.Mapping[str, Any]:
    """The metadata of a field; empty if the type is no dataclass with that field."""
    fields = dataclasses.fields(bare(kind)) if fields_of(kind) else ()
    return next((field.metadata for field in fields if field.name == name), {})


def _broken_bound(metadata: typing.Mapping[str, Any], value: Any) -> str:
    """The bound that a value violates, as text; '' if it violates none."""
    if isinstance(value, str) and "plain_name" not in metadata:
        return ""
    if isinstance(value, float) and not math.isfinite(value):
        return "a finite number"
    if "at_least" in metadata and value < metadata["at_least"]:
        return f"at least {metadata['at_least']}"
    if "above" in metadata and value <= metadata["above"]:
        return f"above {metadata['above']}"
    if "plain_name" in metadata and not PLAIN_NAME.fullmatch(value):
        return PLAIN_NAME_RULE
    return ""


def _unset(field: dataclasses.Field[Any], kind: Any) -> str:
    """How to do without a value of one's own; '' if one is needed."""
    if field.default in (MISSING, dataclasses.MISSING):
        return ""
    return "Leave it out, or write null." if bare(kind) is not kind else (
        f"Leave it out for the default: {inline(field.default)}.")


def _instead(part: str, above: list[str], fields: dict[str, Any]) -> str:
    """What to write instead of an unknown key."""
    name, bracket, _ = part.partition("[")
    if bracket and name in fields:
        whole = ".".join([*above, name])
        return f"Single items of a list cannot be set. Give the whole list: '{whole}=[...]'"
    near = nearest(part, fields)
    return f"An argument of the optimizer? Write optimizer: {{{part}: ...}}" if "ndim" in fields and (
        not near.startswith("Did")) else near


def _reshaped(kind: Any, name: str, value: Any) -> str:
    """How to correct a value that is almost right."""
    if typing.get_origin(bare(kind)) is list and isinstance(value, str | int | float):
        return f"Put it in brackets: {name}: [{inline(value)}]"
    fields = fields_of(kind)
    needs_more = fields and any(one.default == MISSING for one in dataclasses.fields(bare(kind)))
    if fields and not needs_more and isinstance(value, int | float) and not isinstance(value, bool):
        inside = f"{next(iter(fields))}: {inline(value)}" if value else ""
        return f"Write a section{'' if value else ', {} for none'}: {name}: {{{inside}}}"
    if is_mapping(kind) and value is None:
        return f"Write {{}} for none: {name}: {{}}"
    return ""


def bare(kind: Any) -> Any:
    """A type without its `| None`."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        return next(option for option in typing.get_args(kind) if option is not type(None))
    return kind


def is_mapping(kind: Any) -> bool:
    """Whether a type is that of mappings, also an Optional one."""
    return typing.get_origin(bare(kind)) is dict


def item_of(kind: Any) -> Any:
    """The type of a mapping's values."""
    return typing.get_args(bare(kind))[1] if is_mapping(kind) else Any

"""What is wrong with a config, in words: a key nothing has, a value of another kind, a number out of bounds."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, Union

from omegaconf import OmegaConf

from configs.errors import Fault, nearest
from configs.layers import Layer

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}


def misfit(schema: type, layer: Layer, key: str, value: Any) -> Fault:
    """Why `key: value` does not fit the schema."""
    kind: Any = schema
    done: list[str] = []
    for part in key.split("."):
        fields = _fields(kind)
        if fields is not None and part not in fields:
            place = f"in '{'.'.join(done)}'" if done else "at the top level"
            return Fault(what=f"unknown key '{part}' {place}", where=layer.where(".".join([*done, part])),
                         given=f"{key}: {value}", remedy=nearest(part, fields))
        kind = fields[part] if fields is not None else _item(kind)
        done.append(part)
        if _fields(kind) is None and not _is_mapping(kind):
            break
    name = ".".join(done)
    return Fault(what=f"{name} must be {expected(kind)}", where=layer.where(key), given=f"{name}: {value}")


def missing(schema: type, key: str, where: str) -> Fault:
    """A key that has no default and was not given."""
    kind: Any = schema
    for part in key.split("."):
        fields = _fields(kind)
        kind = fields[part] if fields is not None else _item(kind)
    return Fault(what=f"'{key}' is missing", where=where, remedy=f"It must be {expected(kind)}.")


def out_of_bounds(schema: type, node: Any, prefix: str = "") -> Iterator[tuple[str, str, Any]]:
    """(dotted key, the bound in words, the value) of each number that its field's metadata rules out."""
    kinds = typing.get_type_hints(schema)
    for field in dataclasses.fields(schema):
        key, kind = prefix + field.name, kinds[field.name]
        value = None if OmegaConf.is_missing(node, field.name) else node[field.name]
        if value is None:
            continue
        if _fields(kind):
            yield from out_of_bounds(_bare(kind), value, f"{key}.")
        elif _is_mapping(kind) and _fields(_item(kind)):
            for name in value:
                if value[name] is not None:
                    yield from out_of_bounds(_bare(_item(kind)), value[name], f"{key}.{name}.")
        elif "at_least" in field.metadata and not value >= field.metadata["at_least"]:
            yield key, f"at least {field.metadata['at_least']}", value
        elif "above" in field.metadata and not value > field.metadata["above"]:
            yield key, f"above {field.metadata['above']}", value


def expected(kind: Any) -> str:
    """The kind of value that a type takes, for a reader."""
    bare = _bare(kind)
    if typing.get_origin(bare) is Literal:
        words = "one of " + ", ".join(map(str, typing.get_args(bare)))
    elif typing.get_origin(bare) is list:
        words = "a list"
    elif fields := _fields(bare):
        words = f"a section with some of: {', '.join(fields)}"
    elif _is_mapping(bare):
        words = "a target (`_target_: package.module.Name` and its arguments)" if _item(bare) is Any else "a section"
    else:
        words = WORDS.get(bare, "a value")
    return words + (" or null" if bare is not kind else "")


def _fields(kind: Any) -> dict[str, Any] | None:
    """The field types of a dataclass, seen through Optional; None for what is no dataclass."""
    bare = _bare(kind)
    return typing.get_type_hints(bare) if dataclasses.is_dataclass(bare) and isinstance(bare, type) else None


def _bare(kind: Any) -> Any:
    """A type without its `| None`."""
    if typing.get_origin(kind) in (Union, types.UnionType):
        return next(option for option in typing.get_args(kind) if option is not type(None))
    return kind


def _is_mapping(kind: Any) -> bool:
    return typing.get_origin(_bare(kind)) is dict


def _item(kind: Any) -> Any:
    """The type of a mapping's values."""
    return typing.get_args(_bare(kind))[1] if _is_mapping(kind) else Any

"""A record: a JSON file as a frozen dataclass."""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, Union

from drumbeat.configs.run.files import TYPES, DamagedError, read_object, write_json

LATEST = 2**40
"""The last time that a record can have, in seconds since 1970: later ones have no date."""
LARGEST = 2**63
"""No count or size in a record is larger."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """The base class of all records. Fields written by a newer version are kept in `unknown`, and written back."""

    unknown: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """The record in a file; None if the file does not exist (yet). Raises `DamagedError` if it is damaged."""
        values = read_object(path)
        try:
            return None if values is None else cls.parse(values)
        except ValueError as error:
            raise DamagedError(path, str(error)) from None

    @classmethod
    def require(cls, path: Path) -> Self:
        """The record in a file. Raises `DamagedError` if it is damaged or does not exist."""
        if (found := cls.read(path)) is None:
            raise DamagedError(path, "it is missing")
        return found

    @classmethod
    def parse(cls, values: Mapping[str, Any], prefix: str = "") -> Self:
        """The record of a JSON object. Raises ValueError, which names a field that is missing or has the wrong type,
        with `prefix` before its name."""
        kinds = _kinds(cls)  # type: ignore[arg-type]  # mypy takes a class for an instance of it
        known = {name: _value(values[name], kind, prefix + name) for name, kind in kinds.items() if name in values}
        for one in dataclasses.fields(cls):
            if one.name not in known and one.default is one.default_factory is dataclasses.MISSING:
                raise ValueError(f"'{prefix}{one.name}' is missing")
        return cls(**known, unknown={name: value for name, value in values.items() if name not in kinds})

    def as_json(self) -> dict[str, Any]:
        """The record as a JSON object."""
        known = {one.name: _plain(getattr(self, one.name)) for one in dataclasses.fields(self) if one.name != "unknown"}
        return {**self.unknown, **known}

    def write(self, path: Path, *, durable: bool = True) -> None:
        """Writes the file atomically, also across a power failure if `durable`. Raises `OSError`."""
        write_json(path, self.as_json(), durable=durable)


@cache
def _kinds(record: Any) -> dict[str, Any]:
    """The type of each field that is read from a file."""
    return {name: kind for name, kind in typing.get_type_hints(record).items() if name != "unknown"}


def _value(value: Any, kind: Any, name: str) -> Any:
    """A JSON value converted to the type of its field: nested records are built, and lists may become tuples. Raises
    ValueError if it does not fit."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):  # a type, or None
        return None if value is None else _value(value, inner[0], name)
    if kind is float and value is None:  # as `files.without_nan` has it
        return math.nan
    if kind is Any or (origin is Literal and value in inner):
        return value
    if isinstance(value, dict):
        if dataclasses.is_dataclass(kind):
            return _nested(value, kind, name)
        if origin is dict:
            return {key: _value(item, inner[1], f"{name}.{key}") for key, item in value.items()}
    if origin in (tuple, list) and isinstance(value, list):
        return origin(_value(item, inner[0], f"{name}[{number}]") for number, item in enumerate(value))
    is_time = kind is float and name.rpartition(".")[2] == "time"
    if isinstance(value, int | float) and (is_time or type(value) is int) and not (
            abs(value) < (LATEST if is_time else LARGEST)):
        raise ValueError(f"'{name}' is {str(value)[:40]}, which is out of range")
    if origin is None and (type(value) is kind or (kind is float and type(value) is int)):
        return value
    wanted = f"one of {', '.join(map(str, inner))}" if origin is Literal else TYPES.get(origin or kind, "an object")
    raise ValueError(f"'{name}' is {json.dumps(value):.40}, not {wanted}")


def _nested(value: dict[str, Any], kind: Any, name: str) -> Any:
    """A nested record, or another dataclass whose fields all have defaults."""
    if issubclass(kind, Record):
        return kind.parse(value, f"{name}.")
    return kind(**{inner: _value(value[inner], of, f"{name}.{inner}")
                   for inner, of in _kinds(kind).items() if inner in value})


def _plain(value: Any) -> Any:
    """A field's value as a JSON value."""
    if isinstance(value, Record):
        return value.as_json()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value

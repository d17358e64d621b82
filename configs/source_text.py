"""Values as they are written in YAML. YAML 1.1 reads `on` as true, 0123 as 83, 1e5 as 100000.0 and 12:00:00 as 43200;
where the schema wants text, the text in the file counts."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from drumbeat.configs.faults import bare, fields_of, is_mapping, item_of, metadata_of
from drumbeat.configs.layers import Layer, leaves

OLD_NUMBER = re.compile(r"[-+]?(0[\d_]+|[\d_]+(:[\d_.]+)+)")
"""A number that YAML 1.1 alone reads as octal, or as having the base 60."""


def as_written(schema: type, values: Mapping[str, Any], places: Mapping[str, Layer]) -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of each leaf in `values` that is to be read otherwise than YAML 1.1 reads it. `places` has
    the layer of each leaf."""
    for key, value in leaves(values):
        kind, metadata = _field(schema, key)
        texts = places[key].texts
        if isinstance(value, list) and (typing.get_args(bare(kind)) == (str,) or metadata.get("text")):
            found = [one if one is None else texts.get(f"{key}[{number}]", one) for number, one in enumerate(value)]
            if metadata.get("shell"):
                found = [one if one is None else _shells(str(one)) for one in found]
            if found != value:
                yield key, found
        elif metadata.get("shell") and isinstance(value, str):
            yield key, _shells(value)
        elif metadata.get("minutes") and (minutes := slurm_minutes(texts.get(key, str(value)))) is not None:
            yield key, minutes
        elif key in texts and value is not None and _wants_text(bare(kind), metadata, value, texts[key]):
            yield key, texts[key]


def slurm_minutes(text: str) -> int | None:
    """A time limit as SLURM writes it, in minutes, rounded up: "90", "90:00", "12:00:00", "1-0", "1-12:30". None if it
    is none. Source: sbatch(1), --time."""
    days, dash, rest = text.rpartition("-")
    parts = rest.split(":")
    if not all(re.fullmatch(r"\d+", part) for part in (*parts, *([days] if dash else []))) or len(parts) > 3:
        return None
    if dash or len(parts) == 3:
        hours, minutes, seconds = [*map(int, parts), 0, 0][:3]
    else:
        hours, (minutes, seconds) = 0, [*map(int, parts), 0][:2]
    return (int(days or 0) * 24 + hours) * 60 + minutes + (seconds > 0) + max(0, seconds - 1) // 60


def _shells(text: str) -> str:
    """A shell command in which ${NAME} is the shell's variable, and no reference to another key."""
    return re.sub(r"(\\*)\$\{(?!oc\.)", r"\1\1\\${", text)


def _wants_text(kind: Any, metadata: Mapping[str, Any], value: Any, text: str) -> bool:
    """Whether the source text of a plain scalar counts, and not the value that YAML 1.1 makes of it."""
    if metadata.get("text") and text.lower() in ("true", "false"):
        return False
    return kind is str or bool(metadata.get("text")) or (kind in (int, float) and bool(OLD_NUMBER.fullmatch(text)))


def _field(schema: type, key: str) -> tuple[Any, Mapping[str, Any]]:
    """The type of a leaf, and the metadata of its field; `Any` for an unknown key."""
    kind: Any = schema
    metadata: Mapping[str, Any] = {}
    for part in key.split("."):
        if fields := fields_of(kind):
            kind, metadata = fields.get(part, Any), metadata_of(kind, part)
        else:
            kind = item_of(kind) if is_mapping(kind) else Any
    return kind, metadata

"""The sources a config is made of, as nested values that remember the file and line they came from."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.errors import ConfigError, Fault, nearest


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One source of values: nested as in YAML, and the line of each dotted key."""

    values: dict[str, Any]
    origin: str
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def where(self, key: str) -> str:
        """`file:line` of a key, or of its nearest parent that has a line."""
        while key and key not in self.lines:
            key = key.rpartition(".")[0]
        return f"{self.origin}:{self.lines[key]}" if key else self.origin


def file_layers(file: Path, above: tuple[Path, ...] = ()) -> list[Layer]:
    """The layers of a file: its base's first, its own last. `above` are the files that led here."""
    origin = short(file)
    if file.resolve() in above:
        raise ConfigError(Fault(what="the base files form a circle", where=origin, remedy="Remove one `base:`."))
    values, lines = _parse(file)
    base = values.pop("base", None)
    layer = Layer(values=values, origin=origin, lines=lines)
    if base is None:
        return [layer]
    if not (file.parent / str(base)).is_file():
        others = [path.name for path in file.parent.glob("*.yaml") if path != file]
        raise ConfigError(Fault(what="the base file is not there", where=layer.where("base"), given=str(base),
                                remedy=nearest(str(base), others)))
    return [*file_layers(file.parent / str(base), (*above, file.resolve())), layer]


def assignment_layer(text: str) -> Layer:
    """The layer of one KEY=VALUE; the value is read as YAML."""
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise ConfigError(Fault(what="expected KEY=VALUE", where="command line", given=text,
                                remedy="For example batch_size=64 or phases.head.epochs=2."))
    try:
        values = OmegaConf.to_container(OmegaConf.from_dotlist([text]))
    except (yaml.YAMLError, OmegaConfBaseException):
        raise ConfigError(Fault(what="the value is not valid YAML", where="command line", given=text,
                                remedy="Quote what the shell or YAML would read otherwise.")) from None
    return Layer(values=typing.cast(dict[str, Any], values), origin="command line")


def flag_layer(key: str, value: Any) -> Layer:
    """The layer of a flag: `launch.gpus` is set by --gpus."""
    return Layer(values=nest(key, value), origin="--" + key.rpartition(".")[2].replace("_", "-"))


def overlay(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Layer]]:
    """All layers as one nested dict, later ones on top, and the layer each leaf came from.

    Lists are replaced whole. A section whose `_target_` changes is replaced too: the old target's arguments would
    only be refused by the new one.
    """
    values: dict[str, Any] = {}
    places: dict[str, Layer] = {}
    for layer in layers:
        _put(values, layer.values)
        places |= {key: layer for key, _ in leaves(layer.values)}
    return values, {key: places[key] for key, _ in leaves(values)}


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of everything that is not itself a section with keys."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def nest(key: str, value: Any) -> dict[str, Any]:
    """`{'a': {'b': value}}` for the dotted key 'a.b'."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return typing.cast(dict[str, Any], value)


def short(path: Path) -> str:
    """A path as a reader wants it: from the current folder where it lies below it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _put(under: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        old = under.get(key)
        if isinstance(value, dict) and isinstance(old, dict) and value.get("_target_") in (None, old.get("_target_")):
            _put(old, value)
        elif isinstance(value, dict):
            under[key] = {}
            _put(under[key], value)
        else:
            under[key] = value


def _parse(file: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The values of a YAML file (as OmegaConf reads them: 1e-6 is a number) and the line of each dotted key."""
    where = short(file)
    try:
        text = file.read_text(encoding="utf-8")
        values = OmegaConf.to_container(OmegaConf.create(text)) if text.strip() else {}
        lines = dict(_lines(yaml.compose(text, Loader=yaml.CSafeLoader)))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise ConfigError(Fault(what=f"not valid YAML: {getattr(error, 'problem', None) or error}",
                                where=f"{where}:{mark.line + 1}" if mark else where,
                                remedy="Check indentation, colons and brackets at that line.")) from None
    except (OSError, UnicodeDecodeError, OmegaConfBaseException) as error:
        raise ConfigError(Fault(what=f"cannot read the config: {error}", where=where)) from None
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(Fault(what="a config is a mapping of keys to values", where=where,
                                given=text.strip().splitlines()[0]))
    return typing.cast(dict[str, Any], values), lines


def _lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield prefix + str(key.value), key.start_mark.line + 1
            yield from _lines(value, f"{prefix}{key.value}.")

"""The sources a config is made of, as nested values that remember the file and line they came from."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from drumbeat.configs.errors import ConfigError, Fault, nearest
from drumbeat.configs.yaml_text import Loader, inline, parse

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds launch/, trainers/, configs/ and the rest."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One source of values: nested as in YAML, and the line of each dotted key."""

    values: dict[str, Any]
    origin: str
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def where(self, key: str) -> str:
        """`file:line` of a key, or of its nearest parent that has a line."""
        while key and key not in self.lines:
            key = parent(key)
        return f"{self.origin}:{self.lines[key]}" if key else self.origin


def file_layers(file: Path, above: tuple[Path, ...] = ()) -> list[Layer]:
    """The layers of a file: its base's first, its own last. `above` are the files that led here."""
    if file.resolve() in above:
        circle = [*above[above.index(file.resolve()):], file]
        raise ConfigError(Fault(what="the base files form a circle", where=short(above[-1]),
                                given=" -> ".join(path.name for path in circle), remedy="Remove one `base:`."))
    layer = _file_layer(file)
    base = layer.values.pop("base", None)
    if base is None:
        return [layer]
    found = next((path for path in (file.parent / str(base), ROOT / "configs" / str(base)) if path.is_file()), None)
    if not isinstance(base, str) or found is None:
        others = [path.name for path in file.parent.glob("*.yaml") if path.is_file() and path != file]
        raise ConfigError(Fault(what="the base file does not exist", where=layer.where("base"),
                                given=f"base: {inline(base)}", remedy=nearest(str(base), others)))
    return [*file_layers(found, (*above, file.resolve())), layer]


def assignment_layer(text: str) -> Layer:
    """The layer of one KEY=VALUE; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(Fault(what="expected KEY=VALUE", where="command line", given=text,
                                remedy="For example batch_size=64 or phases.head.epochs=2"))
    try:
        return Layer(values=nest(key, yaml.load(value, Loader)), origin="command line")
    except yaml.YAMLError:
        raise ConfigError(Fault(what=f"the value of {key} is not valid YAML", where="command line", given=text,
                                remedy="Close brackets and quotes, and quote the whole for the shell: 'KEY=[1,2]'"
                                )) from None


def flag_layer(key: str, value: Any) -> Layer:
    """The layer of a flag: `launch.gpus` is set by --gpus."""
    return Layer(values=nest(key, value), origin="--" + key.rpartition(".")[2].replace("_", "-"))


def overlay(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Layer]]:
    """All layers as one nested dict, later ones on top, and the layer each leaf came from.

    Lists are replaced whole, and so is a section that is set to {}. A section whose `_target_` changes is replaced too:
    the old target's arguments would only be refused by the new one. Raises `ConfigError` for what would set a list's
    items one by one.
    """
    values: dict[str, Any] = {}
    places: dict[str, Layer] = {}
    faults: list[Fault] = []
    for layer in layers:
        faults += [
            Fault(what=f"{key} is a list, and its items cannot be set one by one", where=layer.where(key),
                  given=f"{key}: {inline(value)}", remedy=f"Give the whole list: '{key}=[...]'")
            for key, value in _put(values, layer.values)
        ]
        places |= {key: layer for key, _ in leaves(layer.values)}
    if faults:
        raise ConfigError(*faults)
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


def parent(key: str) -> str:
    """'data.train' for 'data.train.root' and for 'data.train[0]'; '' for a key at the top."""
    return key[:max(key.rfind("."), key.rfind("["), 0)]


def short(path: Path) -> str:
    """A path as a reader wants it: from the current folder where it lies below it, else from Drumbeat's own."""
    path = Path(os.path.normpath(path.absolute()))
    for folder in (Path.cwd(), ROOT):
        if path.is_relative_to(folder) and (folder == Path.cwd() or not path.relative_to(folder).exists()):
            return str(path.relative_to(folder))
    return str(path)


def _put(under: dict[str, Any], over: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Puts `over` on top of `under`, and yields what does not go: keys below a list."""
    for name, value in over.items():
        key, old = f"{prefix}{name}", under.get(name)
        if isinstance(old, list) and isinstance(value, dict) and value:
            yield key, value
        elif isinstance(value, dict) and value:
            same = isinstance(old, dict) and value.get("_target_") in (None, old.get("_target_"))
            under[name] = old if same else {}
            yield from _put(under[name], value, f"{key}.")
        else:
            under[name] = {} if isinstance(value, dict) else value


def _file_layer(file: Path) -> Layer:
    """One file. Raises `ConfigError` where it is no YAML mapping."""
    where = short(file)
    try:
        text = file.read_text(encoding="utf-8")
        values, lines = parse(text)
    except OSError as error:
        raise ConfigError(Fault(what=f"cannot read the config: {error.strerror}", where=where)) from None
    except (UnicodeDecodeError, yaml.reader.ReaderError):
        raise ConfigError(Fault(what="the config is not a text file", where=where,
                                remedy="A config is a YAML file: see configs/ for examples.")) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(_not_yaml(error, where, text)) from None
    if values is None:
        raise ConfigError(Fault(what="the config is empty", where=where,
                                remedy="Start from one in configs/, or build on it with `base: FILE.yaml`."))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        odd = next((key for key in values if not isinstance(key, str)), None) if isinstance(values, dict) else values
        raise ConfigError(Fault(what="a config is a section of named values", where=where, given=inline(odd),
                                remedy="Write `name: value`, one a line."))
    return Layer(values=values, origin=where, lines=lines)


def _not_yaml(error: Exception, where: str, text: str) -> Fault:
    """What a parser's complaint means."""
    mark, lines = getattr(error, "problem_mark", None), text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if isinstance(error, yaml.constructor.ConstructorError):
        remedy = ""
    elif "\t" in line[:len(line) - len(line.lstrip())]:
        remedy = "Indent with spaces: YAML does not take tabs."
    else:
        remedy = "Look for a bracket, quote or colon at this line or just above it."
    return Fault(what=f"not valid YAML: {getattr(error, 'problem', None) or type(error).__name__}",
                 where=f"{where}:{mark.line + 1}" if mark else where, given=line.strip(), remedy=remedy)

"""The layers of a config: nested values that remember the file and line they come from."""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from drumbeat.configs.bounds import DEEPEST, MOST_BYTES
from drumbeat.configs.errors import ConfigError, Fault, nearest
from drumbeat.configs.reading import open_regular
from drumbeat.configs.yaml_text import inline, parse

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds launch/, trainers/, configs/ and the rest."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The values from one file, KEY=VALUE or flag, nested as in YAML, and the line of each dotted key."""

    values: dict[str, Any]
    origin: str
    lines: Mapping[str, int] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The values that YAML does not read as text, as they are written, by dotted key."""

    def where(self, key: str) -> str:
        """`file:line` of a key, or of its nearest parent that has a line number."""
        while key and key not in self.lines:
            key = parent(key)
        return f"{self.origin}:{self.lines[key]}" if key else self.origin


def file_layers(file: Path, above: tuple[Path, ...] = ()) -> list[Layer]:
    """The layers of a file: those of its base first, its own last. `above` are the files that name it as their base."""
    if file.resolve() in above:
        circle = [*above[above.index(file.resolve()):], file]
        raise ConfigError(Fault(what="the base files form a cycle", where=short(above[-1]),
                                given=" -> ".join(path.name for path in circle), remedy="Remove one `base:`."))
    layer = file_layer(file)
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
    """The layer of one KEY=VALUE. The value is read as YAML. Raises `ConfigError`."""
    key, equals, value = text.partition("=")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(Fault(what="a KEY=VALUE must be UTF-8", where="command line", given=text,
                                remedy="Rename the file or folder that it names.")) from None
    if not equals or not all(key.split(".")) or key.count(".") >= DEEPEST:
        raise ConfigError(Fault(what="expected KEY=VALUE", where="command line", given=text,
                                remedy="For example batch_size=64 or phases.head.epochs=2"))
    try:
        parsed = parse(value)
        return Layer(values=nest(key, parsed.value), origin="command line", texts={
            f"{key}{'.' * (inner[:1] not in ('', '['))}{inner}": text for inner, text in parsed.texts.items()})
    except yaml.constructor.ConstructorError as error:
        raise ConfigError(Fault(what=f"the value of {key} cannot be used: {error.problem}", where="command line",
                                given=f"{text:.200}")) from None
    except yaml.YAMLError:
        raise ConfigError(Fault(what=f"the value of {key} is not valid YAML", where="command line", given=text,
                                remedy="Close brackets and quotes, and quote the whole argument for the shell: "
                                       "'KEY=[1,2]'")) from None


def flag_layer(key: str, value: Any) -> Layer:
    """The layer of a flag: `launch.gpus` is set by --gpus, and `launch.min_nodes` by --nodes."""
    name = key.rpartition(".")[2].removeprefix("min_")
    return Layer(values=nest(key, value), origin="--" + name.replace("_", "-"))


def overlay(layers: Sequence[Layer]) -> tuple[dict[str, Any], dict[str, Layer]]:
    """All layers merged into one nested dict, in which later layers win, and the layer of each leaf.

    A list replaces a list as a whole, and {} empties a section. A section whose `_target_` changes is replaced as well,
    because the arguments belong to the old target (`left_out` reports them). Raises `ConfigError` for a key that would
    set a single item of a list.
    """
    values: dict[str, Any] = {}
    places: dict[str, Layer] = {}
    faults: list[Fault] = []
    for layer in layers:
        faults += [
            Fault(what=f"{key} is a list, and single items of it cannot be set", where=layer.where(key),
                  given=f"{key}: {inline(value)}", remedy=f"Give the whole list: '{key}=[...]'")
            for key, value in _put(values, layer.values)
        ]
        places |= {key: layer for key, _ in leaves(layer.values)}
    if faults:
        raise ConfigError(*faults)
    return values, {key: places[key] for key, _ in leaves(values)}


def left_out(layers: Sequence[Layer]) -> list[str]:
    """A note for each section whose `_target_` a later layer changed: which arguments of the old target were left out,
    and not set again."""
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    lost: dict[str, dict[str, tuple[str, str]]] = {}
    for layer in layers:
        replaced: dict[str, dict[str, Any]] = {}
        list(_put(values, layer.values, replaced=replaced))
        for key, old in replaced.items():
            for name, value in old.items():
                (leaf, _), *_ = leaves({name: value}, f"{key}.")
                text = name if isinstance(value, dict | list) else f"{name}={inline(value)}"
                lost.setdefault(key, {})[name] = text, origins[leaf]
        origins |= {key: layer.origin for key, _ in leaves(layer.values)}
    return [note for key, old in lost.items() if (note := _left_out(key, old, _section(values, key)))]


def sweep_section(layers: Sequence[Layer]) -> dict[str, Any]:
    """Takes the `sweep:` section out of the layers. Raises `ConfigError`."""
    found: dict[str, Any] = {}
    for layer in layers:
        section = layer.values.pop("sweep", {})
        if not isinstance(section, dict):
            raise ConfigError(Fault(what="`sweep:` must be a section of keys and the values to try",
                                    where=layer.where("sweep"), given=f"sweep: {inline(section)}",
                                    remedy="For example: sweep: {seed: 0..4}"))
        found |= section
    return found


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
    """A path for a reader: relative to the current folder if it is below it, or else to Drumbeat's own folder."""
    path = Path(os.path.normpath(path.absolute()))
    for folder in (Path.cwd(), ROOT):
        if path.is_relative_to(folder) and (folder == Path.cwd() or not path.relative_to(folder).exists()):
            return str(path.relative_to(folder))
    return str(path)


def _put(under: dict[str, Any], over: Mapping[str, Any], prefix: str = "",
         replaced: dict[str, dict[str, Any]] | None = None) -> Iterator[tuple[str, Any]]:
    """Merges `over` into `under`, and yields what cannot be merged: keys below a list. Sections that another target
    replaces are added to `replaced`."""
    for name, value in over.items():
        key, old = f"{prefix}{name}", under.get(name)
        if isinstance(old, list) and isinstance(value, dict) and value:
            yield key, value
        elif isinstance(value, dict) and value:
            same = isinstance(old, dict) and value.get("_target_") in (None, old.get("_target_"))
            if isinstance(old, dict) and not same and replaced is not None:
                replaced[key] = old
            under[name] = old if same else {}
            yield from _put(under[name], value, f"{key}.", replaced)
        else:
            under[name] = {} if isinstance(value, dict) else value


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The section of a dotted key; empty if there is none."""
    for part in key.split("."):
        values = values.get(part, {}) if isinstance(values, Mapping) else {}
    return values if isinstance(values, Mapping) else {}


def _left_out(key: str, old: Mapping[str, tuple[str, str]], new: Mapping[str, Any]) -> str:
    """The note for one section, from the texts and origins of its old arguments; '' if the new section has them all."""
    lost = [argument for name, argument in old.items() if name not in new]
    if not lost or "_target_" not in new:
        return ""
    arguments = ", ".join(text for text, _ in lost)
    origins = " and ".join(dict.fromkeys(origin for _, origin in lost))
    was, them = ("was", "it again if it is") if len(lost) == 1 else ("were", "them again if they are")
    return f"{key} is now {new['_target_']}: {arguments} from {origins} {was} left out; set {them} meant"


def file_layer(file: Path, inside: Path | None = None) -> Layer:
    """The layer of one file, which no link may lead out of the folder `inside`. Raises `ConfigError` if it is not a
    YAML mapping."""
    where = short(file)
    try:
        with open_regular(file, most=MOST_BYTES, inside=inside) as opened:
            text = opened.read().decode("utf-8")
        values, lines, texts = parse(text)
    except OSError as error:
        raise ConfigError(Fault(what=f"cannot read the config: {error.strerror}", where=where)) from None
    except (UnicodeDecodeError, yaml.reader.ReaderError):
        raise ConfigError(Fault(what="the config is not a text file", where=where,
                                remedy="A config is a YAML file: see configs/ for examples.")) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(_not_yaml(error, where, text)) from None
    if values is None:
        raise ConfigError(Fault(what="the config is empty", where=where,
                                remedy="Copy one from configs/, or extend one with `base: FILE.yaml`."))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        odd = next((key for key in values if not isinstance(key, str)), None) if isinstance(values, dict) else values
        raise ConfigError(Fault(what="a config must be a section of named values", where=where, given=inline(odd),
                                remedy="Write `name: value`, one per line."))
    return Layer(values=values, origin=where, lines=lines, texts=texts)


def _not_yaml(error: Exception, where: str, text: str) -> Fault:
    """The fault that a YAML parser's error stands for."""
    mark, lines = getattr(error, "problem_mark", None), text.splitlines()
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    if isinstance(error, yaml.constructor.ConstructorError):
        remedy = ""
    elif "\t" in line[:len(line) - len(line.lstrip())]:
        remedy = "Indent with spaces: YAML does not allow tabs."
    else:
        remedy = "Check the brackets, quotes and colons in this line and the one above it."
    return Fault(what=f"not valid YAML: {getattr(error, 'problem', None) or type(error).__name__}",
                 where=f"{where}:{mark.line + 1}" if mark else where, given=line.strip(), remedy=remedy)

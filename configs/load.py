"""From a config file to a `Config`: defaults < file (< its base) < KEY=VALUE < flags.

    loaded = load("configs/resnet50_xray.yaml", ["batch_size=64"], {"launch.gpus": 8})
    loaded.config                      # the frozen Config
    loaded.where("batch_size")         # 'command line'

All faults are collected before one `ConfigError` is raised, each with the file and line it stands in.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.errors import ConfigError, Fault, nearest
from configs.faults import misfit, missing, out_of_bounds, unresolved
from configs.layers import ROOT as ROOT
from configs.layers import Layer, assignment_layer, file_layers, flag_layer, leaves, nest, overlay, parent, short
from configs.schema import Config, Site
from configs.text import dump, inline

PATH_ARGUMENTS = ("root", "folder", "path", "file")
"""Arguments of targets with these names, or ending in _ and one of them, are paths."""

Schema = TypeVar("Schema")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A config, and where each value that is not a default comes from."""

    config: Config
    layers: Sequence[Layer] = ()
    """Lowest first."""
    places: Mapping[str, Layer] = field(default_factory=dict)
    """The layer of each leaf that is not a default."""

    @property
    def sources(self) -> dict[str, str]:
        """`file:line`, flag or 'command line' of each leaf that is not a default."""
        return {key: layer.where(key) for key, layer in self.places.items()}

    def where(self, key: str) -> str:
        """The source of a leaf, of an item in a list, or of a section as its topmost layer has it; '' for a default."""
        inside = [layer for leaf, layer in self.places.items() if leaf.startswith(f"{key}.")]
        if inside:
            return max(inside, key=self.layers.index).where(key)
        leaf = key
        while leaf and leaf not in self.places:
            leaf = parent(leaf)
        return self.places[leaf].where(key) if leaf else ""

    def located(self, fault: Fault) -> Fault:
        """A fault that names a dotted key, with the source of that key before it."""
        source = self.where(fault.where)
        if not source:
            return fault
        return dataclasses.replace(fault, where=source if source.startswith("--") else f"{source} ({fault.where})")

    def as_yaml(self) -> str:
        """The resolved config as YAML that `read` reads; a comment tells where each changed value comes from."""
        return dump(dataclasses.asdict(self.config), self.sources)


def load(file: str | Path, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Loaded:
    """The config of `file` with `assignments` (KEY=VALUE) and `flags` (dotted key to value) on top.

    Relative paths in it become absolute, taken from the current folder. Raises `ConfigError`.
    """
    layers = file_layers(find(file))
    faults: list[Fault] = []
    for text in assignments:
        try:
            layers.append(assignment_layer(text))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(*faults)
    layers += [flag_layer(key, value) for key, value in (flags or {}).items()]
    config, places = _build(Config, layers)
    config = dataclasses.replace(config, phases={name: phase for name, phase in config.phases.items() if phase})
    loaded = Loaded(config=config, layers=layers, places=places)
    if not config.phases:
        raise ConfigError(Fault(what="no phases: the run would train nothing",
                                where=loaded.where("phases") or layers[0].origin,
                                remedy="Add one: phases: {train: {epochs: 10, optimizer: {_target_: ...}}}"))
    return loaded


def read(file: Path) -> Config:
    """The resolved config that a run folder holds."""
    return build_config(file_layers(file))


def build_config(layers: Sequence[Layer]) -> Config:
    """The config of these layers alone."""
    return _build(Config, layers)[0]


def load_site(profile: str | None) -> Site:
    """The cluster that --profile names, from configs/clusters/ or by path; an ordinary one where it is None."""
    if profile is None:
        return Site()
    folder = ROOT / "configs" / "clusters"
    file = Path(profile) if profile.endswith(".yaml") else folder / f"{profile}.yaml"
    if not file.is_file():
        sites = [path.stem for path in folder.glob("*.yaml")]
        raise ConfigError(Fault(what=f"no cluster profile '{profile}'", where=short(file.parent),
                                given=f"--profile {profile}", remedy=nearest(profile, sites)))
    return _build(Site, file_layers(file))[0]


def find(file: str | Path) -> Path:
    """A config by path, from here or from Drumbeat's own folder, or by the name of a shipped one."""
    for candidate in (Path(file), ROOT / file, ROOT / "configs" / f"{file}.yaml"):
        if candidate.is_file():
            return candidate
    if Path(file).is_dir():
        inside = sorted(path.name for path in Path(file).glob("*.yaml"))
        raise ConfigError(Fault(what="a config is a file, and this is a folder", where=short(Path(file)),
                                remedy=f"In it: {', '.join(inside)}" if inside else ""))
    near = [path.name for folder in (Path(file).parent, ROOT / "configs") for path in folder.glob("*.yaml")
            if path.is_file()]
    raise ConfigError(Fault(what=f"there is no config '{file}'", where=str(Path(file).parent.absolute()),
                            remedy=nearest(Path(file).name, near)))


def _build(schema: type[Schema], layers: Sequence[Layer]) -> tuple[Schema, dict[str, Layer]]:
    """The schema's object with all layers over its defaults, and the layer of each value that one gave."""
    values, places = overlay(layers)
    merged, faults = _merge(schema, values, places)
    try:
        faults += [*_missing(schema, merged, faults, layers), *_out_of_bounds(schema, merged, places)]
        built = None if faults else OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = str(getattr(error, "full_key", ""))
        faults.append(unresolved(error, places[key].where(key) if key in places else layers[0].origin, key))
    if faults:
        raise ConfigError(*sorted(dict.fromkeys(faults), key=lambda fault: _in_order(fault, layers)))
    return typing.cast(Schema, _absolute_paths(built)), places


def _missing(schema: type, merged: Any, found: Sequence[Fault], layers: Sequence[Layer]) -> Iterator[Fault]:
    """Keys that have no default and were not given, unless `found` tells of them already."""
    files = [layer for layer in layers if layer.lines] or layers[:1]
    for key in sorted(OmegaConf.missing_keys(merged)):
        if not any(key in fault.what for fault in found):
            section = f"{parent(key)}."
            inside = [layer for layer in layers if any(leaf.startswith(section) for leaf, _ in leaves(layer.values))]
            where = inside[-1].where(parent(key)) if "." in key and inside else files[-1].origin
            fault = missing(schema, key, where)
            if key.startswith("phases."):
                names = ", ".join(map(str, merged.phases))
                fault = dataclasses.replace(fault, remedy=f"{fault.remedy} The phases of this config: {names}.")
            yield fault


def _out_of_bounds(schema: type, merged: Any, places: Mapping[str, Layer]) -> Iterator[Fault]:
    for key, bound, value in out_of_bounds(schema, merged):
        layer = places.get(key) or next(layer for leaf, layer in places.items() if leaf.startswith(f"{key}."))
        yield Fault(what=f"{key} must be {bound}", where=layer.where(key), given=f"{key}: {inline(value)}")


def _merge(schema: type, values: dict[str, Any], places: Mapping[str, Layer]) -> tuple[Any, list[Fault]]:
    """The schema's defaults with `values` over them, and what of `values` does not fit."""
    merged: Any = OmegaConf.structured(schema)
    try:
        return OmegaConf.merge(merged, values), []
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        first = str(error).splitlines()[0]
    faults = []
    for key, value in leaves(values):  # one by one, so that each fault is found
        try:
            merged = OmegaConf.merge(merged, nest(key, value))
        except (OmegaConfBaseException, TypeError, ValueError):
            faults.append(misfit(schema, places[key], key, value))
    return merged, faults or [Fault(what=first, where=next(iter(places.values())).origin)]


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
        return dataclasses.replace(node, **{name: _absolute_paths(value) for name, value in vars(node).items()})
    if isinstance(node, list):
        return [_absolute_paths(item, in_target) for item in node]
    if not isinstance(node, dict):
        return node
    in_target = in_target or "_target_" in node
    return {key: str(Path(value).expanduser().absolute()) if in_target and _is_path(key, value)
            else _absolute_paths(value, in_target) for key, value in node.items()}


def _is_path(key: Any, value: Any) -> bool:
    if not isinstance(value, str) or value == "" or "://" in value:
        return False
    looks_like_one = value.endswith((".pth", ".pt", ".safetensors"))
    return str(key).split("_")[-1] in PATH_ARGUMENTS or (key == "weights" and looks_like_one)

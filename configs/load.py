"""From a config file to a `Config`: defaults < file (< its base) < KEY=VALUE < flags.

    loaded = load("configs/resnet50_xray.yaml", ["batch_size=64"], {"launch.gpus": 8})
    loaded.config                  # the frozen Config
    loaded.sources["batch_size"]   # 'command line'

All faults are collected before one `ConfigError` is raised, each with the file and line it stands in.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.errors import ConfigError, Fault, nearest
from configs.faults import misfit, missing, out_of_bounds
from configs.layers import Layer, assignment_layer, file_layers, flag_layer, leaves, nest, overlay
from configs.schema import Config, Site

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds launch/, trainers/, configs/ and the rest."""

PATH_ARGUMENTS = ("root", "folder", "path", "file")
"""Arguments of targets with these names, or ending in _ and one of them, are paths."""

Schema = TypeVar("Schema")


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A config, and for each value that is not a default the place it came from."""

    config: Config
    sources: dict[str, str]


def load(file: str | Path, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Loaded:
    """The config of `file` with `assignments` (KEY=VALUE) and `flags` (dotted key to value) on top.

    Relative paths in it become absolute, taken from the current folder. Raises `ConfigError`.
    """
    layers = [*file_layers(find(file)), *map(assignment_layer, assignments)]
    layers += [flag_layer(key, value) for key, value in (flags or {}).items()]
    config, sources = _build(Config, layers)
    config = dataclasses.replace(config, phases={name: p for name, p in config.phases.items() if p is not None})
    if not config.phases:
        raise ConfigError(Fault(what="no phases: the run would train nothing", where=layers[0].origin,
                                remedy="Add one, for example\nphases: {train: {epochs: 10, optimizer: {...}}}"))
    return Loaded(config=config, sources=sources)


def read(file: Path) -> Config:
    """The resolved config that a run folder holds."""
    return build_config(file_layers(file))


def build_config(layers: Sequence[Layer]) -> Config:
    """The config of these layers alone."""
    return _build(Config, layers)[0]


def to_yaml(config: Config) -> str:
    """The resolved config as YAML: what `read` reads."""
    return OmegaConf.to_yaml(OmegaConf.create(dataclasses.asdict(config)))


def load_site(profile: str | None) -> Site:
    """The cluster that --profile names, from configs/clusters/ or by path; an ordinary one where it is None."""
    if profile is None:
        return Site()
    folder = ROOT / "configs" / "clusters"
    file = Path(profile) if profile.endswith(".yaml") else folder / f"{profile}.yaml"
    if not file.is_file():
        sites = [path.stem for path in folder.glob("*.yaml")]
        raise ConfigError(Fault(what=f"no cluster profile '{profile}'", where=str(file), given=f"--profile {profile}",
                                remedy=nearest(profile, sites)))
    return _build(Site, file_layers(file))[0]


def find(file: str | Path) -> Path:
    """A config by path, from here or from Drumbeat's own folder, or by the name of a shipped one."""
    for candidate in (Path(file), ROOT / file, ROOT / "configs" / f"{file}.yaml"):
        if candidate.is_file():
            return candidate
    shipped = [path.name for path in (ROOT / "configs").glob("*.yaml")]
    raise ConfigError(Fault(what=f"no config file '{file}'", where=str(Path.cwd()),
                            remedy=nearest(Path(file).name, shipped)))


def _build(schema: type[Schema], layers: Sequence[Layer]) -> tuple[Schema, dict[str, str]]:
    """The schema's object with all layers over its defaults, and the source of each value that a layer gave."""
    values, places = overlay(layers)
    merged: Any = OmegaConf.structured(schema)
    faults: list[Fault] = []
    try:
        merged = OmegaConf.merge(merged, values)
    except (OmegaConfBaseException, TypeError, ValueError):
        for key, value in leaves(values):  # one by one, so that each fault is found
            try:
                merged = OmegaConf.merge(merged, nest(key, value))
            except (OmegaConfBaseException, TypeError, ValueError):
                faults.append(misfit(schema, places[key], key, value))
    faulty = {fault.what for fault in faults}
    faults += [missing(schema, key, layers[0].origin) for key in sorted(OmegaConf.missing_keys(merged))
               if not any(key in what for what in faulty)]
    for key, bound, value in out_of_bounds(schema, merged):
        where = places[key].where(key) if key in places else layers[0].origin
        faults.append(Fault(what=f"{key} must be {bound}", where=where, given=f"{key}: {value}"))
    if faults:
        raise ConfigError(*dict.fromkeys(faults))
    try:
        plain = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(Fault(what=str(error).splitlines()[0], where=layers[0].origin)) from None
    merged = OmegaConf.merge(merged, _absolute_paths(plain))
    return typing.cast(Schema, OmegaConf.to_object(merged)), {key: layer.where(key) for key, layer in places.items()}


def _absolute_paths(node: Any, in_target: bool = False) -> Any:
    """The same tree with the path arguments of targets made absolute from the current folder."""
    if isinstance(node, list):
        return [_absolute_paths(item, in_target) for item in node]
    if not isinstance(node, dict):
        return node
    in_target = in_target or "_target_" in node
    return {key: str(Path(value).expanduser().absolute()) if in_target and _is_path(key, value)
            else _absolute_paths(value, in_target) for key, value in node.items()}


def _is_path(key: str, value: Any) -> bool:
    if not isinstance(value, str) or value == "":
        return False
    looks_like_one = value.endswith((".pth", ".pt", ".safetensors"))
    return key.split("_")[-1] in PATH_ARGUMENTS or (key == "weights" and looks_like_one)

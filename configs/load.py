"""From a config file to a `Config`: defaults < file (< its base) < KEY=VALUE < flags.

    loaded = load("configs/resnet50_xray.yaml", ["batch_size=64"], {"launch.gpus": 8})
    loaded.config                      # the frozen Config
    loaded.where("batch_size")         # 'command line'

All faults are collected and raised as one `ConfigError`. Each names its file and line.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault, nearest
from drumbeat.configs.initialize import Initialize
from drumbeat.configs.layers import ROOT as ROOT
from drumbeat.configs.layers import (
    Layer,
    assignment_layer,
    file_layer,
    file_layers,
    flag_layer,
    left_out,
    short,
    sweep_section,
)
from drumbeat.configs.merge import Places, build, references, source, with_references
from drumbeat.configs.notifications import notify_faults
from drumbeat.configs.operation import Notify, Reference
from drumbeat.configs.sbatch_options import GPUS, MEMORY, owned_options
from drumbeat.configs.schema import Config, Phase
from drumbeat.configs.secrets import holds_secret, is_secret_name, literal_secrets
from drumbeat.configs.site import Site
from drumbeat.configs.trackers import tracker_faults
from drumbeat.configs.variables import variables
from drumbeat.configs.yaml_text import dump, inline

ASSIGNED = re.compile(r"""\b(\w+)=(?!["']?\$)["']?[^\s"']""")
"""The variable of NAME=VALUE in a shell command, unless the shell computes the value."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A config, and the source of each value that is not a default."""

    config: Config
    layers: Sequence[Layer] = ()
    """Lowest first."""
    places: Places = field(default_factory=dict)
    references: Mapping[str, str] = field(default_factory=dict)
    """The values that are written as references to other keys, ${KEY}, by dotted key."""
    notes: Sequence[str] = ()
    """What the user should know: sentences without full stops."""
    sweep: Mapping[str, Any] = field(default_factory=dict)
    """The file's `sweep:` section, which only `drumbeat sweep` reads."""

    @property
    def sources(self) -> dict[str, str]:
        """`file:line`, flag or 'command line' of each leaf that is not a default."""
        return {key: layer.where(key) for key, layer in self.places.items()}

    def where(self, key: str) -> str:
        """The source of a leaf or list item, or the source of the topmost value in a section; '' for a default."""
        return source(key, self.places, self.layers)

    def located(self, fault: Fault) -> Fault:
        """A fault at a dotted key, with the source of that key added."""
        source = self.where(fault.where)
        if not source:
            return fault
        return dataclasses.replace(fault, where=source if source.startswith("--") else f"{source} ({fault.where})")

    def as_yaml(self) -> str:
        """The resolved config as YAML for `read`, with a comment for the source of each value that is not a default.
        References to other keys are kept, so that `rerun` with another value changes both."""
        return dump(with_references(plain(self.config), self.references), self.sources)


def secret_note(key: str) -> str:
    """What the user should know about a secret that is written in a config."""
    return (f"{key} is probably a secret, and the run's config.yaml, which only you can read, holds it. Refer to an "
            f"environment variable instead, {key.rpartition('.')[2]}: ${{oc.env:NAME}}")


def plain(config: Config) -> dict[str, Any]:
    """The config's values. data.root, tracking.to, initialize, reference and notify are left out if they are not set: a
    run's copy of the code may not know these keys."""
    values = dataclasses.asdict(config)
    if values["data"]["root"] is None:
        del values["data"]["root"]
    if not config.tracking.to:
        del values["tracking"]["to"]
    for name, default in (("initialize", Initialize()), ("reference", Reference()), ("notify", Notify())):
        if getattr(config, name) == default:
            del values[name]
    return values


def load(file: str | Path, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None) -> Loaded:
    """The config of `file` with `assignments` (KEY=VALUE) and `flags` (dotted key to value) on top.

    Relative paths are resolved against the current folder. Raises `ConfigError`.
    """
    files = file_layers(find(file))
    sweep = sweep_section(files)
    layers = [*files, *_typed(assignments, flags or {})]
    config, places = build(Config, layers, record=True)
    config = _without_removed_phases(config)
    return _checked(Loaded(config=config, layers=layers, places=places, references=references(layers), sweep=sweep,
                           notes=[*left_out(layers), *map(secret_note, literal_secrets(plain(config)))]),
                    layers[0].origin)


def _checked(loaded: Loaded, origin: str) -> Loaded:
    """The config, which has something to train, and in which `data.root` is set if and only if it has an effect.
    `origin` names its file. Raises `ConfigError`."""
    config = loaded.config
    if not config.phases:
        raise ConfigError(Fault(what="the config has no phases, so there is nothing to train",
                                where=loaded.where("phases") or origin,
                                remedy="Add one: phases: {train: {epochs: 10, optimizer: {_target_: ...}}}"))
    if faults := [*tracker_faults(config.tracking.to), *notify_faults(config.notify)]:
        raise ConfigError(*map(loaded.located, faults))
    referred = any("${data.root}" in written for written in loaded.references.values())
    if referred and not config.data.root:
        raise ConfigError(Fault(what="the datasets refer to data.root, which is not set",
                                where=loaded.where("data.root"),
                                given=f"data.root: {inline(config.data.root)}", remedy="Name a folder: data.root=DIR"))
    if loaded.where("data.root") == "command line" and not referred:
        raise ConfigError(Fault(what="data.root has no effect: no dataset in this config refers to it",
                                where="command line", given=f"data.root: {config.data.root}",
                                remedy="Change each dataset, for example data.train.root=DIR; or write "
                                       "root: '${data.root}/train' in the config."))
    return loaded


def _without_removed_phases(config: Config) -> Config:
    """The config without the phases and groups that are null, and without the reference figures of these phases."""
    removed = {name for name, phase in config.phases.items() if phase is None}
    phases: dict[str, Phase | None] = {
        name: dataclasses.replace(phase, groups={one: group for one, group in phase.groups.items() if group})
        for name, phase in config.phases.items() if phase}
    curves = {name: of for name, of in config.reference.curves.items() if name not in removed}
    return dataclasses.replace(config, phases=phases, reference=dataclasses.replace(config.reference, curves=curves))


def reload(file: Path, assignments: Sequence[str] = (), flags: Mapping[str, Any] | None = None, *,
           base: Config | None = None) -> Loaded:
    """The config of a run that is resumed, from its folder, with `assignments` and `flags` on top; or with `base` in
    place of the run's config. Whether they may change is not checked here (`configs/run/changes.py`). Raises
    `ConfigError`.
    """
    typed = _typed(assignments, flags or {})
    layers = [run_layer(file) if base is None else Layer(values=plain(base), origin=short(file)), *typed]
    config, places = build(Config, layers, record=True)
    return _checked(Loaded(
        config=_without_removed_phases(config), layers=typed, references=references(layers), notes=left_out(layers),
        places={key: layer for key, layer in places.items() if layer in typed}), layers[0].origin)


def _typed(assignments: Sequence[str], flags: Mapping[str, Any]) -> list[Layer]:
    """The layers of the command line. Raises `ConfigError` for all malformed assignments."""
    layers: list[Layer] = []
    faults: list[Fault] = []
    for text in assignments:
        try:
            layers.append(assignment_layer(text))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(*faults)
    return layers + [flag_layer(key, value) for key, value in flags.items()]


def read(file: Path) -> Config:
    """The resolved config of a run folder, which may be another user's: nothing in it is followed or resolved but
    references to its own keys."""
    return build_config([run_layer(file)])


def run_layer(file: Path) -> Layer:
    """The values of a run's config. Raises `ConfigError`."""
    return file_layer(file, inside=file.parent)


def build_config(layers: Sequence[Layer]) -> Config:
    """The config of these layers, without further checks."""
    return build(Config, layers)[0]


def load_site(profile: str | None) -> Site:
    """The cluster that --profile names, in configs/clusters/ or by path; the default cluster for None."""
    if profile is None:
        return Site()
    folder = ROOT / "configs" / "clusters"
    file = Path(profile) if profile.endswith(".yaml") else folder / f"{profile}.yaml"
    if not file.is_file():
        sites = [path.stem for path in folder.glob("*.yaml")]
        raise ConfigError(Fault(what=f"no cluster profile '{profile}'", where=short(file.parent),
                                given=f"--profile {profile}", remedy=nearest(profile, sites)))
    layers = file_layers(file)
    try:
        site, places = build(Site, layers, record=True)
    except ConfigError as error:
        raise ConfigError(*map(_as_option, error.faults)) from None
    if secrets := [*(f"environment.{name}" for name, text in site.environment.items()
                     if is_secret_name(name) or holds_secret(str(text))),
                   *(key for key, text in _commands(site) if variables(text) or holds_secret(text)
                     or any(map(is_secret_name, ASSIGNED.findall(text))))]:
        raise ConfigError(*(Fault(what=f"{key} of a cluster profile is probably a secret, and would be stored in the "
                                       "run's plan and in the job's script", where=source(key, places, layers),
                                  remedy="Remove it, and export it in the shell that submits: a job inherits the "
                                         "variables of that shell.") for key in secrets))
    if faults := list(_site_faults(site, lambda key: source(key, places, layers) or short(file))):
        raise ConfigError(*faults)
    return site


def _as_option(fault: Fault) -> Fault:
    """The fault of an unknown key in a profile that is perhaps an option of sbatch, with what to write instead."""
    found = re.fullmatch(r"unknown key '([\w-]+)' at the top level", fault.what)
    if not found or fault.remedy.startswith("Did"):
        return fault
    key = found[1].replace("-", "_")
    instead = MEMORY.get(key) or owned_options({key: fault.given}).get(key) or (
        "if it is an option of sbatch, put it below `sbatch:`; otherwise remove it")
    return dataclasses.replace(fault, remedy=f"{instead[0].upper()}{instead[1:]}.")


def _site_faults(site: Site, where: Callable[[str], str]) -> Iterator[Fault]:
    """What a cluster's profile may not say; `where` gives the place of a key."""
    if site.signal_seconds >= 60 * site.time_minutes:
        yield Fault(what="the signal to save would be sent before the job starts", where=where("signal_seconds"),
                    given=f"signal_seconds: {site.signal_seconds}, time_minutes: {site.time_minutes}",
                    remedy="Increase time_minutes, or lower signal_seconds.")
    options = {key.replace("_", "-"): key for key, value in site.sbatch.items() if value is not None}
    memory = [key for key in ("mem_gb_per_node", "mem_gb_per_cpu", "mem_gb_per_gpu") if getattr(site, key) is not None]
    memory += [f"sbatch.{options[name]}" for name in ("mem", "mem-per-cpu", "mem-per-gpu") if name in options]
    if len(memory) > 1:
        yield Fault(what="memory is requested in more than one way", where=where(memory[1]), given=", ".join(memory),
                    remedy="Keep one of them: SLURM does not accept more.")
    owned = owned_options(site.sbatch)
    gres = options.get("gres", "")
    if gres and site.gpu_flag == "gres" and re.search(r"(^|,)(gres[:/])?gpu\b", str(site.sbatch[gres])):
        owned[gres] = GPUS
    for key, value in site.sbatch.items():
        if key.startswith("-") or isinstance(value, list | dict):
            yield Fault(what=f"not an option of sbatch: {key}", where=where(f"sbatch.{key}"),
                        given=f"{key}: {inline(value)}",
                        remedy="Write the option without dashes." if key.startswith("-") else
                        "Write its value as sbatch reads it: A,B")
    for key, instead in owned.items():
        yield Fault(what=f"Drumbeat sets this option of sbatch itself: {key}", where=where(f"sbatch.{key}"),
                    given=f"{key}: {inline(site.sbatch[key])}", remedy=f"{instead[0].upper()}{instead[1:]}.")


def _commands(site: Site) -> list[tuple[str, str]]:
    """The dotted key and text of what a profile adds to commands."""
    return [*((f"setup[{number}]", line) for number, line in enumerate(site.setup)), ("prefix", site.prefix),
            *((f"sbatch.{name}", str(value)) for name, value in site.sbatch.items())]


def find(file: str | Path) -> Path:
    """A config by path, relative to the current or to Drumbeat's own folder, or the name of a shipped config."""
    for candidate in (Path(file), ROOT / file, ROOT / "configs" / f"{file}.yaml"):
        if candidate.is_file():
            return candidate
    if Path(file).is_dir():
        inside = sorted(path.name for path in Path(file).glob("*.yaml"))
        raise ConfigError(Fault(what="a config must be a file, and this is a folder", where=short(Path(file)),
                                remedy=f"It contains: {', '.join(inside)}" if inside else ""))
    near = [path.name for folder in (Path(file).parent, ROOT / "configs") for path in folder.glob("*.yaml")
            if path.is_file()]
    raise ConfigError(Fault(what=f"there is no config '{file}'", where=str(Path(file).parent.absolute()),
                            remedy=nearest(Path(file).name, near)))


def load_typed(arguments: Sequence[str]) -> Loaded:
    """The config of CONFIG [KEY=VALUE ...], as typed on the command line. Raises `ConfigError`."""
    files = [argument for argument in arguments if "=" not in argument]
    if len(files) != 1:
        raise ConfigError(Fault(what="a config is required" if not files else "only one config can be given",
                                where="command line", given=" ".join(files),
                                remedy="Change its values with KEY=VALUE: batch_size=64" if files
                                else "For example: configs/resnet50_xray_demo.yaml"))
    return load(files[0], [argument for argument in arguments if "=" in argument])

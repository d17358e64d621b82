"""From the arguments of `sweep` to the trials. Nothing is written yet."""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.configs.load import Loaded, find, load, reload
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.sweep import Sweep, SweepDir, Trial
from drumbeat.configs.schema import Config
from drumbeat.launch.backends.backend import backend_of
from drumbeat.launch.plan.gpus import usable_together
from drumbeat.launch.plan.job import Machine, batch_faults
from drumbeat.launch.plan.snapshot import newest_code
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.trust import check_trusted
from drumbeat.launch.start.resolve import check_flags, previous_layout, resolve_fork, resolve_run
from drumbeat.launch.start.start import Start, locating_faults
from drumbeat.launch.sweeps import space
from drumbeat.launch.sweeps.notation import parse_words, section, values_of
from drumbeat.launch.sweeps.sampler import check_sampler, ends_of
from drumbeat.launch.sweeps.trial import forked_trial, shared_values

SHARED = ("name", "launch.*", "deterministic", "watchdog.*", "checkpoints.disk_wait_minutes", "notify.*",
          "tracking.to*")
"""Keys that all trials have in common, because they decide how processes are started."""


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A sweep that is about to be started."""

    folder: SweepDir
    sweep: Sweep
    spec: Start
    """The start of its first trial, with the values that all trials share."""
    checks: Sequence[Loaded] = ()
    """The configs of the trials that the preflight check is run on."""
    before: int = 0
    """How many trials it had, if it is extended."""
    unchecked: int = 0
    """How many other combinations of model and data there are."""


def resolve_sweep(args: argparse.Namespace) -> Planned:
    """`sweep`: the trials of a new sweep. Raises `UserError` for what is wrong with any of them."""
    parent = _parent(args) if args.at is not None else None
    check_flags(args, fork=parent is not None)
    check_options(args)
    file = parent.config if parent else find(next(word for word in args.words if "=" not in word))
    typed, written = parse_words([word for word in args.words if "=" in word])
    flags = {"name": args.name} if args.name else {}
    loaded = reload(file, typed, flags | previous_layout(JobPlan.require(parent.plan), args)) if parent else (
        load(file, typed, flags | _layout(args)))
    changes, varied = _with_section(loaded.sweep, typed, written)
    if not varied:
        raise ConfigError(Fault(what="nothing varies: there is one trial", where="command line",
                                given=" ".join(args.words), remedy="Give a key several values, seed=0..4; or train it "
                                                                   "once: drumbeat run CONFIG"))
    if wrong := [key for key in varied if any(fnmatchcase(key, pattern) for pattern in SHARED)]:
        raise ConfigError(*(Fault(what=f"{key} is the same in all trials of a sweep", where="command line",
                                  given=f"{key}={varied[key]}", remedy="Start one sweep for each value.")
                            for key in wrong))
    check_metric(loaded.config, args.asha)
    if args.sampler:
        trials = tuple(Trial(number=number, values={}) for number in range(args.sample))
    else:
        trials = space.numbered(space.spread(varied, args.sample, args.draw_seed))
    folder = SweepDir(_new_folder(Path(args.runs), loaded.config.name, args.name))
    sweep = Sweep(id=RunDir.new(Path(args.runs), folder.name).id, typed=args.typed, config=str(file.absolute()),
                  changes=tuple(changes), space=varied, samples=args.sample, seed=args.draw_seed, trials=trials,
                  monitor=loaded.config.evaluation.monitor, mode=loaded.config.evaluation.mode,
                  asha=args.asha is not None, sampler=args.sampler or "")
    slots = None if args.slurm else slots_of(loaded.config, Machine.here(), args.max_parallel)
    ends = ends_of(sweep) if sweep.sampler else trials
    args = argparse.Namespace(**vars(args) | {"name": folder.name, "words": [str(file), *changes]})
    if parent:  # whose last step has nothing behind it unless the first trial's values add something
        args.words = [*changes, *ends[0].assignments]
        spec = resolve_fork(args, str(parent.path), folder.run(sweep, 0), slots or 1)
        assert spec.prefix
        sweep = dataclasses.replace(sweep, parent=str(parent.path), at=spec.prefix.fork.step)
        spec = dataclasses.replace(spec, loaded=dataclasses.replace(loaded, notes=spec.loaded.notes))
    else:
        spec = resolve_run(args, folder.run(sweep, 0), slots or 1)
    sweep = dataclasses.replace(sweep, backend=spec.plan.backend, slots=slots or args.max_parallel)
    return with_checks(Planned(folder=folder, sweep=sweep, spec=spec), ends, file)


def _parent(args: argparse.Namespace) -> RunDir:
    """The run that trials are forked from, which is the first word that is no KEY=VALUE, and is taken out of them. As
    its forks are, they are submitted to SLURM if it was. Raises `UserError`."""
    names = [word for word in args.words if "=" not in word]
    if not names:
        raise ConfigError(Fault(what="no run given", where="command line", given=f"--at {args.at}",
                                remedy="For example: drumbeat sweep RUN --at 60% KEY=A,B"))
    parent = find_run(names[0], Path(args.runs))
    check_trusted(parent, args)
    args.words = [word for word in args.words if word != names[0]]
    backend = backend_of(JobPlan.require(parent.plan).backend)
    submitted = backend.on_slurm and not backend.attached
    if submitted and args.sampler and not args.slurm:
        raise ConfigError(Fault(what="a sampler needs the queue on this machine, and forks of this run are submitted "
                                     "to SLURM, as it was", where=str(parent.path), given=f"--sampler {args.sampler}",
                                remedy="Remove it: give each key values or a distribution."))
    args.slurm = args.slurm or submitted
    return parent


def check_options(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for what the options of a sweep cannot be."""
    faults = []
    if args.max_parallel is not None and args.max_parallel < 1:
        faults.append(("at least one trial runs at a time", f"--max-parallel {args.max_parallel}", "Remove it."))
    if args.asha is not None and args.slurm:
        faults.append(("successive halving needs a queue on this machine", "--asha --slurm",
                       "Remove one of them; in an salloc, the queue uses the node's GPUs."))
    if args.sampler:
        if args.sample is None or args.sample < 1:
            faults.append(("the number of trials that the sampler chooses is not given", f"--sampler {args.sampler}",
                           "Add it: --sample 40"))
        faults += [(f"--sampler and {one} are mutually exclusive", "", f"Remove {one}.") for one, given in (
            ("--asha", args.asha is not None), ("--slurm", args.slurm)) if given]
    if args.asha is not None and args.at is not None:
        faults.append(("successive halving compares trials from their beginnings, and forks begin alike",
                       f"--asha {args.asha} --at {args.at}", "Remove --asha."))
    if faults:
        raise ConfigError(*(Fault(what=what, where="command line", given=given, remedy=remedy)
                            for what, given, remedy in faults))
    if args.sampler:
        check_sampler(args.sampler)


def check_metric(config: Config, metric: str | None) -> None:
    """Raises `ConfigError` if successive halving is to compare trials by another metric than the config's."""
    if metric and metric != config.evaluation.monitor:
        raise ConfigError(Fault(
            what=f"trials are compared by the monitored metric, {config.evaluation.monitor}", where="--asha",
            given=metric, remedy=f"Add evaluation.monitor={metric} evaluation.mode=max (or min)"))


def with_checks(planned: Planned, trials: Sequence[Trial], file: Path) -> Planned:
    """The sweep with the configs that the preflight check is to run on, once a few of these trials have been built from
    the config in `file`. Raises `UserError`."""
    folder, sweep, plan = planned.folder, planned.sweep, planned.spec.plan
    configs: dict[int, Loaded] = {}

    def config_of(trial: Trial) -> Loaded:
        if trial.number not in configs:
            configs[trial.number] = forked_trial(folder, sweep, trial, plan)[0] if sweep.parent else load(
                file, [*sweep.changes, *trial.assignments], shared_values(folder, plan))
        return configs[trial.number]

    for trial in space.covering(trials):
        loaded = config_of(trial)
        with locating_faults(loaded):
            if faults := batch_faults(loaded.config, plan.topology):
                raise ConfigError(*faults)
    shapes = space.structures(trials)
    return dataclasses.replace(planned, checks=[config_of(trial) for trial in shapes[:PREFLIGHTS]],
                               unchecked=max(0, len(shapes) - PREFLIGHTS))


def resolve_extension(args: argparse.Namespace, folder: SweepDir, before: Sweep) -> Planned:
    """`sweep --extend`: a sweep with more values or draws. Raises `UserError`."""
    typed, written = parse_words(args.words)
    single = dict(word.partition("=")[::2] for word in typed)
    check_extension(args)
    varied = space.united(before.space, single | written)
    if before.sampler:
        check_sampler(before.sampler)
    samples = before.samples if args.sample is None else max(args.sample, before.samples or 0)
    trials = space.numbered(space.spread(varied, samples, before.seed), before.trials) if not before.sampler else (
        *before.trials, *(Trial(number=number, values={}) for number in range(len(before.trials), samples or 0)))
    sweep = dataclasses.replace(before, space=varied, samples=samples, trials=trials, halted=False)
    plan = JobPlan.require(folder.plan)
    base = load(folder.config)
    spec = Start(run_dir=folder.run(sweep, 0), loaded=base, plan=plan, preflight=not args.no_preflight,
                 code=newest_code(folder.path))
    shared = sweep if sweep.parent else (
        dataclasses.replace(sweep, changes=()))  # which the config in the sweep's folder contains
    planned = with_checks(Planned(folder=folder, sweep=shared, spec=spec),
                          ends_of(sweep) if sweep.sampler else trials[len(before.trials):], folder.config)
    return dataclasses.replace(planned, sweep=sweep, before=len(before.trials))


def check_extension(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for what all trials of a sweep have in common."""
    given = [*(word for word in args.words if "=" not in word), *(
        f"--{name.replace('_', '-')}" for name in ("gpus", "procs", "nodes", "slurm", "profile", "name", "draw_seed",
                                                   "max_parallel", "asha", "at", "new_code") if getattr(args, name))]
    if given:
        raise ConfigError(Fault(what="a sweep is extended by KEY=VALUE and --sample only", where="command line",
                                given=" ".join(given), remedy="Remove it."))


PREFLIGHTS = 3
"""How many combinations of model and data the preflight check builds: each takes some seconds."""


def _with_section(of_file: Mapping[str, Any], typed: list[str], written: Mapping[str, str]
                  ) -> tuple[list[str], dict[str, str]]:
    """The KEY=VALUE that all trials share, and what varies: the config's `sweep:` section, and over it what is typed.
    """
    given = {word.partition("=")[0] for word in typed}
    varied = {key: text for key, text in section(of_file).items() if key not in given} | dict(written)
    single = [f"{key}={text}" for key, text in varied.items() if values_of(key, text) == (text,)]
    return [*typed, *single], {key: text for key, text in varied.items() if f"{key}={text}" not in single}


def _new_folder(runs: Path, config: str, name: str | None) -> Path:
    """The folder of a new sweep: runs/NAME. By default the name is the config's and -sweep, with a number if that is
    taken. Raises `ConfigError` if a given name is taken."""
    if name:
        if os.path.lexists(runs / name):
            raise ConfigError(Fault(what=f"'{name}' exists already", where="--name", given=str(runs / name),
                                    remedy=f"Choose another name; or extend a sweep: drumbeat sweep --extend {name}"))
        return (runs / name).absolute()
    names = (f"{config}-sweep{f'-{number}' if number > 1 else ''}" for number in range(1, 10**6))
    return (runs / next(one for one in names if not os.path.lexists(runs / one))).absolute()


def slots_of(config: Config, machine: Machine, most: int | None) -> int:
    """How many trials this machine runs at the same time: as many as have GPUs or cores of their own, but at most
    `most`; any number if the config leaves the number of cores open, which are divided then."""
    wanted = config.launch
    gpus = usable_together(machine.gpus or ())
    used = len(gpus) if wanted.gpus is None else wanted.gpus
    cores = wanted.procs * wanted.cpus_per_rank if wanted.cpus_per_rank else None
    fit = len(gpus) // used if used else (machine.cpus or 1) // cores if cores else most or 1
    return max(1, min(most or fit, fit) if used else most or fit)


def _layout(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that decide the number of processes, as config values."""
    values = {"launch.nodes": args.nodes and args.nodes.most, "launch.min_nodes": args.nodes and args.nodes.least,
              "launch.gpus": args.gpus, "launch.procs": args.procs}
    found = {key: value for key, value in values.items() if value is not None}
    return found | ({"launch.gpus": 0} if args.procs is not None and args.gpus is None else {})

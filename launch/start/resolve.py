"""From the arguments of `run`, `resume`, `rerun` and `fork` to a config and a plan. Nothing is written yet."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
from functools import partial
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault, RunError, nearest
from drumbeat.configs.layers import short
from drumbeat.configs.load import Loaded, find, load, load_site
from drumbeat.configs.run.changes import exactness
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.manifest import QUARANTINED, checkpoint_path, damage, newest_state, saved_steps
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import BACKENDS, backend_of, running_evidence
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.backends.typed import command
from drumbeat.launch.plan import snapshot
from drumbeat.launch.plan.job import Machine, plan_job
from drumbeat.launch.plan.references import check_references, with_references
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.source_run import with_source_run
from drumbeat.launch.runs.status import with_final_state
from drumbeat.launch.runs.trust import check_trusted
from drumbeat.launch.start.changed_config import changed_config
from drumbeat.launch.start.fork import forked
from drumbeat.launch.start.start import Start, locating_faults


def resolve_run(args: argparse.Namespace, trial: RunDir | None = None, slots: int = 1) -> Start:
    """`run`: the start of a new run; or of the first trial of a sweep, of which this machine runs `slots` at a time,
    and whose code is beside its trials."""
    file = find(next(word for word in args.words if "=" not in word))
    loaded = load(file, [word for word in args.words if "=" in word], _flags(args))
    loaded = with_source_run(loaded, Path(args.runs))
    if loaded.sweep and trial is None:
        note = f"one run of all that is in the config's sweep: section: drumbeat sweep {shlex.quote(short(file))}"
        loaded = dataclasses.replace(loaded, notes=[*loaded.notes, note])
    run_dir = trial or RunDir.new(Path(args.runs), loaded.config.name)
    backend = _backend(args)
    machine = _machine(slots)
    if args.dry_run and (loaded.config.launch.gpus or 0) > len(machine.gpus or ()):
        machine = dataclasses.replace(machine, gpus=tuple(map(str, range(loaded.config.launch.gpus or 0))))
    resources = backend_of(backend).resources(machine)
    with locating_faults(loaded):
        plan = plan_job(loaded.config, run_dir=run_dir.path, backend=backend, machine=resources,
                        site=load_site(args.profile), folder=Path.cwd())
    spec = Start(run_dir=run_dir, loaded=loaded, plan=with_references(plan, loaded.config), file=file)
    return _with_code(args, spec, trial.path.parent if trial else run_dir.path)


def resolve_resume(args: argparse.Namespace, run: str) -> Start:
    """`resume`: the start of an existing run, with its own code and config; on the same backend and with as many
    processes as before, unless flags change that."""
    view = with_final_state(View.read(find_run(run, Path(args.runs))))
    run_dir = view.run
    check_trusted(run_dir, args)
    if (evidence := running_evidence(view)) and not (args.take_over and not processes_of(view)):
        raise RunError(Fault(what=f"run {run_dir.id} is still running", where=str(run_dir.path), given=evidence,
                             remedy=_still_running_remedy(view)))
    loaded, changed = changed_config(run_dir, args.words, previous_layout(view.plan, args),
                                     finished=view.state == "finished" and not corrupted_weights(view))
    plan = with_references(_plan_like(args, view.plan, loaded, run_dir), loaded.config, view.plan)
    check_references(plan, view.plan)
    return _with_code(args, Start(run_dir=run_dir, loaded=loaded, plan=plan, previous=view, changed=changed))


def corrupted_weights(view: View) -> bool:
    """Whether the last or the best weights of a finished run are corrupted, and an older checkpoint is intact from
    which resuming it trains them again. Weights that somebody has deleted are not corrupted."""
    result = view.result
    steps = {result.steps, result.best.get("step", result.steps)} if result else set()
    corrupted = [step for step in steps if _is_corrupted(checkpoint_path(view.run, step))]
    return bool(corrupted) and any(not damage(checkpoint_path(view.run, step)) for step in saved_steps(view.run)
                                   if step < max(corrupted))


def _is_corrupted(checkpoint: Path) -> bool:
    """Whether a checkpoint is damaged, or has been quarantined because it was."""
    quarantined = checkpoint.with_name(f"{QUARANTINED}{checkpoint.name}")
    return bool(damage(checkpoint)) if checkpoint.exists() else quarantined.exists()


def _still_running_remedy(view: View) -> str:
    """What to do about a run that is running, or may be running on a machine or cluster that cannot be reached."""
    wait = f"Wait until it ends, or stop it: {command('stop', view.run)}"
    return wait if processes_of(view) else (
        f"{wait}\nIf you are sure that it is dead: {command('resume', view.run)} --take-over")


def resolve_rerun(args: argparse.Namespace, run: str) -> Start:
    """`rerun`: the start of a new run with the code and config of another run, except for given values."""
    source = find_run(run, Path(args.runs))
    check_trusted(source, args)
    before = JobPlan.require(source.plan)
    loaded = with_source_run(load(source.config, args.words, previous_layout(before, args)), Path(args.runs))
    if (state := newest_state(source)) and (history := exactness(state.progress.changes)):
        note = f"run {source.id} is {history}; this run has the last values from its start"
        loaded = dataclasses.replace(loaded, notes=[*loaded.notes, note])
    run_dir = RunDir.new(Path(args.runs), loaded.config.name)
    with locating_faults(loaded):
        plan = _plan_like(args, before, loaded, run_dir)
    return _with_code(args, Start(run_dir=run_dir, loaded=loaded, plan=with_references(plan, loaded.config),
                                  source=source))


def resolve_fork(args: argparse.Namespace, run: str, trial: RunDir | None = None, slots: int = 1) -> Start:
    """`fork`: the start of a new run that shares the steps of another run up to one of them; or of the first trial of
    a sweep, as `resolve_run`."""
    source = find_run(run, Path(args.runs))
    check_trusted(source, args)
    before = JobPlan.require(source.plan)
    loaded, prefix = forked(source, args.at, args.words, previous_layout(before, args))
    run_dir = trial or RunDir.new(Path(args.runs), loaded.config.name)
    backend = _backend(args, None if trial else before)
    with locating_faults(loaded):
        like = _plan_like(args, before, loaded, run_dir, backend, slots)
    plan = with_references(like, loaded.config, before)
    check_references(plan, before)
    spec = Start(run_dir=run_dir, loaded=loaded, plan=plan, source=source, prefix=prefix)
    return _with_code(args, spec, trial.path.parent if trial else None)


def _plan_like(args: argparse.Namespace, before: JobPlan, loaded: Loaded, run_dir: RunDir,
               backend: BackendName | None = None, slots: int = 1) -> JobPlan:
    """The plan of a resumed or repeated run: like an earlier plan, unless flags change it."""
    backend = backend or _backend(args, before)
    resources = backend_of(backend).resources(_machine(slots))
    return plan_job(loaded.config, run_dir=run_dir.path, backend=backend, machine=resources,
                    site=load_site(args.profile) if args.profile else before.site, folder=Path(before.folder))


def _machine(slots: int) -> Machine:
    """This machine for one of `slots` runs at a time, among which its cores are divided."""
    machine = Machine.here()
    return dataclasses.replace(machine, cpus=max(1, (machine.cpus or 1) // slots)) if slots > 1 else machine


def _backend(args: argparse.Namespace, before: JobPlan | None = None) -> BackendName:
    """The backend of a run: that of a flag, otherwise that of the plan `before` if it was SLURM, otherwise local."""
    requested = next((name for name, one in BACKENDS.items() if one.flag and getattr(args, one.flag[2:])), None)
    return requested or (before.backend if before and backend_of(before.backend).on_slurm else "local")


def previous_layout(plan: JobPlan, args: argparse.Namespace) -> dict[str, Any]:
    """The config values that give a run as many ranks and threads as a plan, because its results depend on both. Flags
    override them; with another number of ranks, the cores are divided again."""
    flags, layout = _flags(args), backend_of(plan.backend).layout(plan)
    if flags.keys() & {"launch.gpus", "launch.procs"}:
        layout = {key: value for key, value in layout.items() if key == "launch.nodes"}
    return layout | flags


def _with_code(args: argparse.Namespace, spec: Start, folder: Path | None = None) -> Start:
    """The start with the code that it runs: a new copy in `folder`, by default the run's; the run's own copy; or that
    of the run it repeats; with --debug the original files, so that breakpoints in them work."""
    spec = dataclasses.replace(spec, preflight=not args.no_preflight)
    backend = backend_of(spec.plan.backend)
    if not backend.module or args.no_snapshot:
        return spec
    before = spec.source or (None if spec.is_new else spec.run_dir)
    code = snapshot.newest_code(before.path) if before else None
    found = snapshot.Snapshot.read(code / "snapshot.json") if code and not args.new_code else None
    if code and found and not found.has_module(backend.module, code):
        raise RunError(Fault(what=f"the run's copy of the code has no {backend.module}", where=str(code),
                             remedy="The copy is older than this backend. Add --new-code."))
    if spec.prefix and code and found and not found.has_module(Fork.__module__, code):
        raise RunError(Fault(what="the run's copy of the code knows no forks", where=str(code),
                             remedy="Add --new-code."))
    if not spec.is_new and not args.new_code:
        return spec if code is None or found is None else (
            dataclasses.replace(spec, plan=found.relocate(spec.plan, code), code=code, code_text=found.text()))
    target = snapshot.next_code(folder or spec.run_dir.path)
    if code and found:
        return dataclasses.replace(spec, plan=found.relocate(spec.plan, target), code=target,
                                   make_code=partial(snapshot.copy_snapshot, code), code_text=found.text())
    planned = snapshot.plan_snapshot(spec.loaded.config, spec.file, spec.plan)
    code_text = f"a copy, taken when the run is submitted, of {', '.join(tree.folder for tree in planned.trees)}"
    return dataclasses.replace(spec, plan=planned.relocate(spec.plan, target), code=target, code_text=code_text,
                               make_code=partial(snapshot.copy_code, planned, exclude=Path(args.runs)))


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that set config values, by dotted key."""
    nodes = args.nodes
    values = {"name": args.name, "launch.nodes": nodes and nodes.most, "launch.min_nodes": nodes and nodes.least,
              "launch.gpus": args.gpus, "launch.procs": args.procs}
    flags = {key: value for key, value in values.items() if value is not None}
    if args.procs is not None and args.gpus is None:
        flags["launch.gpus"] = 0
    return flags


def check_flags(args: argparse.Namespace, *, resume: bool = False, rerun: bool = False, fork: bool = False) -> None:
    """Raises `ConfigError` with all contradictions between the arguments."""
    flags = {f"--{name.replace('_', '-')}" for name, value in vars(args).items() if value}
    exclusive = [("--debug", "--slurm"), ("--debug", "--here"), ("--here", "--slurm"), ("--debug", "--detach"),
                ("--debug", "--nodes"), ("--slurm", "--detach"),
                ("--gpus", "--procs"), ("--resume", "--name")]
    faults = [(f"{one} and {other} are mutually exclusive", "", f"Remove {other}.")
              for one, other in exclusive if {one, other} <= flags]
    if args.debug and max(args.gpus or 0, args.procs or 0) > 1:
        faults.append(("--debug runs one rank, in this process", "", "Remove --gpus and --procs."))
    exists = resume or rerun or fork
    if args.profile and not (args.slurm or args.here or exists):
        faults.append(("--profile describes a cluster, but this run is local", f"--profile {args.profile}",
                       "Add --slurm or --here, or remove --profile."))
    configs = [word for word in args.words if "=" not in word]
    if exists and configs:
        faults.append((f"a run is {'resumed' if resume else 'forked' if fork else 'repeated'} with its own config",
                       " ".join(configs), "Remove it, or start a new run: drumbeat run CONFIG"))
    elif not exists and not configs:
        faults.append(("no config given", " ".join(args.words), "For example: drumbeat run resnet50_xray_demo"))
    elif len(configs) > 1:
        faults.append(("more than one config", " ".join(configs), _instead_of(configs[1])))
    if faults:
        raise ConfigError(*(Fault(what=what, where="command line", given=given, remedy=remedy)
                            for what, given, remedy in faults))


def _instead_of(word: str) -> str:
    """The remedy for a second word without "="."""
    flag = "" if "." in word else nearest(word, ("debug", "detach", "dry-run", "gpus", "here", "name", "nodes", "procs",
                                                 "profile", "resume", "slurm"))
    if flag.startswith("Did"):
        return flag.replace("'", "'--", 1)
    return "Write changes to it as KEY=VALUE: batch_size=64"

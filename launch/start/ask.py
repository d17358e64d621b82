"""What the words of `run`, `resume` and `rerun` ask for: argv -> Config -> JobPlan. Nothing is written yet."""

from __future__ import annotations

import argparse
import dataclasses
from functools import partial
from pathlib import Path
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault, RunError, nearest
from drumbeat.configs.load import Loaded, find, load, load_site, reload
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import BackendName
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import BACKENDS, backend_of, still_runs
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.backends.typed import command
from drumbeat.launch.plan import snapshot
from drumbeat.launch.plan.job import Machine, plan_job
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.status import with_final_state
from drumbeat.launch.start.start import Start, pointing_into


def ask_fresh(args: argparse.Namespace) -> Start:
    """`run`: a run that is to be made. Nothing is written yet."""
    file = find(next(word for word in args.words if "=" not in word))
    loaded = load(file, [word for word in args.words if "=" in word], _flags(args))
    run_dir = RunDir.new(Path(args.runs), loaded.config.name)
    backend = _backend(args)
    machine = Machine.here()
    if args.dry_run and (loaded.config.launch.gpus or 0) > len(machine.gpus or ()):
        machine = dataclasses.replace(machine, gpus=tuple(map(str, range(loaded.config.launch.gpus or 0))))
    resources = backend_of(backend).resources(machine)
    with pointing_into(loaded):
        plan = plan_job(loaded.config, run_dir=run_dir.path, backend=backend, machine=resources,
                        site=load_site(args.profile), folder=Path.cwd())
    return _with_code(args, Start(run_dir=run_dir, loaded=loaded, plan=plan, file=file))


def ask_resume(args: argparse.Namespace, run: str) -> Start:
    """`resume`: a run that is to go on, where it ran before unless a flag says otherwise, with its own code and config
    and as many processes as before unless flags change them."""
    view = with_final_state(View.read(find_run(run, Path(args.runs))))
    run_dir = view.run
    if view.state == "finished":
        raise RunError(Fault(what=f"run {run_dir.id} is finished", where=str(run_dir.path),
                             remedy="Start it again, with more epochs for example: "
                                    f"{command('rerun', run_dir)} KEY=VALUE"))
    if (sign := still_runs(view)) and not (args.take_over and not processes_of(view)):
        raise RunError(Fault(what=f"run {run_dir.id} is still running", where=str(run_dir.path), given=sign,
                             remedy=_instead_of_resuming(view)))
    loaded = reload(run_dir.config, args.words, _as_before(view.plan, args))
    plan = _planned_as_before(args, view.plan, loaded, run_dir)
    return _with_code(args, Start(run_dir=run_dir, loaded=loaded, plan=plan, before=view))


def _instead_of_resuming(view: View) -> str:
    """What to do about a run that is at work, or may be: on a machine or a cluster that cannot be asked."""
    wait = f"Wait for it, or stop it: {command('stop', view.run)}"
    return wait if processes_of(view) else (
        f"{wait}\nIf you know that it is dead: {command('resume', view.run)} --take-over")


def ask_again(args: argparse.Namespace, run: str) -> Start:
    """`rerun`: a new run of the code and config that another run had, but for the values that are given."""
    model = find_run(run, Path(args.runs))
    before = JobPlan.require(model.plan)
    loaded = load(model.config, args.words, _as_before(before, args))
    run_dir = RunDir.new(Path(args.runs), loaded.config.name)
    with pointing_into(loaded):
        plan = _planned_as_before(args, before, loaded, run_dir)
    return _with_code(args, Start(run_dir=run_dir, loaded=loaded, plan=plan, model=model))


def _planned_as_before(args: argparse.Namespace, before: JobPlan, loaded: Loaded, run_dir: RunDir) -> JobPlan:
    """The plan of a run that goes on, or is started again: where and as another one was, unless flags differ."""
    backend = _backend(args, before)
    resources = backend_of(backend).resources(Machine.here())
    return plan_job(loaded.config, run_dir=run_dir.path, backend=backend, machine=resources,
                    site=load_site(args.profile) if args.profile else before.site, folder=Path(before.folder))


def _backend(args: argparse.Namespace, before: JobPlan | None = None) -> BackendName:
    """Where a run is to be: where the flags say, else where SLURM ran it `before`, else on this machine."""
    asked = next((name for name, one in BACKENDS.items() if one.flag and getattr(args, one.flag[2:])), None)
    return asked or (before.backend if before and backend_of(before.backend).on_slurm else "local")


def _as_before(plan: JobPlan, args: argparse.Namespace) -> dict[str, Any]:
    """The flags that give a run as many ranks as a plan has, each with as many threads, unless flags ask for others:
    what it computes depends on both. Where other ranks are asked for, they share the cores anew."""
    asked, layout = _flags(args), backend_of(plan.backend).layout(plan)
    if asked.keys() & {"launch.gpus", "launch.procs"}:
        layout = {key: value for key, value in layout.items() if key == "launch.nodes"}
    return layout | asked


def _with_code(args: argparse.Namespace, what: Start) -> Start:
    """The start with the code it is to run from: a copy that is to be made, the one that the run has, or that of the
    run it repeats; in --debug the files as they are, where breakpoints stand."""
    what = dataclasses.replace(what, preflight=not args.no_preflight)
    backend = backend_of(what.plan.backend)
    if not backend.module or args.no_snapshot:
        return what
    code = snapshot.newest_code((what.model or what.run_dir).path)
    found = snapshot.Snapshot.read(code / "snapshot.json") if code and not args.new_code else None
    if code and found and not found.knows(backend.module, code):
        raise RunError(Fault(what=f"the run's copy of the code has no {backend.module}", where=str(code),
                             remedy="It is older than this way to run it. Add --new-code."))
    if not what.new and not args.new_code:
        return what if code is None or found is None else (
            dataclasses.replace(what, plan=found.relocate(what.plan, code), code=code, copied=found.text()))
    target = snapshot.next_code(what.run_dir.path)
    if code and found:
        return dataclasses.replace(what, plan=found.relocate(what.plan, target), code=target,
                                   fill=partial(snapshot.copy, code), copied=found.text())
    surveyed = snapshot.survey(what.loaded.config, what.file, what.plan)
    words = f"a copy, taken when the run is submitted, of {', '.join(tree.folder for tree in surveyed.trees)}"
    return dataclasses.replace(what, plan=surveyed.relocate(what.plan, target), code=target, copied=words,
                               fill=partial(snapshot.take, surveyed, leave_out=Path(args.runs)))


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that are config values, by dotted key."""
    given = {"name": args.name, "launch.nodes": args.nodes, "launch.gpus": args.gpus, "launch.procs": args.procs}
    flags = {key: value for key, value in given.items() if value is not None}
    if args.procs is not None and args.gpus is None:
        flags["launch.gpus"] = 0
    return flags


def check_flags(args: argparse.Namespace, *, resume: bool = False, rerun: bool = False) -> None:
    """What is given beside each other, and should not be: all at once."""
    given = {f"--{name.replace('_', '-')}" for name, value in vars(args).items() if value}
    together = [("--debug", "--slurm"), ("--debug", "--here"), ("--here", "--slurm"), ("--debug", "--detach"),
                ("--debug", "--nodes"), ("--slurm", "--detach"),
                ("--gpus", "--procs"), ("--resume", "--name")]
    faults = [(f"{one} and {other} are mutually exclusive", "", f"Leave {other} out.")
              for one, other in together if {one, other} <= given]
    if args.debug and max(args.gpus or 0, args.procs or 0) > 1:
        faults.append(("--debug runs one rank, in this process", "", "Leave --gpus and --procs out."))
    exists = resume or rerun
    if args.profile and not (args.slurm or args.here or exists):
        faults.append(("--profile describes a cluster, and this run is for this machine", f"--profile {args.profile}",
                       "Add --slurm, or leave --profile out."))
    configs = [word for word in args.words if "=" not in word]
    if exists and configs:
        faults.append((f"a run is {'resumed' if resume else 'started again'} with its own config",
                       " ".join(configs), "Leave this out, or start a new run: drumbeat run CONFIG"))
    elif not exists and not configs:
        shipped = "configs/resnet50_xray_demo.yaml"
        faults.append(("which config?", " ".join(args.words), f"For example: python launch/run.py {shipped}"))
    elif len(configs) > 1:
        faults.append(("one config at a time", " ".join(configs), _instead_of(configs[1])))
    if faults:
        raise ConfigError(*(Fault(what=what, where="command line", given=what_was, remedy=remedy)
                            for what, what_was, remedy in faults))


def _instead_of(word: str) -> str:
    """What a second word without "=" may have been meant to be."""
    flag = "" if "." in word else nearest(word, ("debug", "detach", "dry-run", "gpus", "here", "name", "nodes", "procs",
                                                 "profile", "resume", "slurm"))
    if flag.startswith("Did"):
        return flag.replace("'", "'--", 1)
    return "Changes to it are written KEY=VALUE: batch_size=64"

"""python launch/run.py CONFIG [KEY=VALUE ...]: trains what a config describes, here or on a cluster.

The `run` command, and nothing else: argv -> Config -> JobPlan -> Request -> submit. `drumbeat run` is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # as a file: Python has put launch/ first on the path, where the repository belongs
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    from launch.cli import main  # which imports this module under its own name, once it is sure to be needed

    sys.exit(main(["run", *sys.argv[1:]], program="python launch/run.py"))

import argparse
import dataclasses
import os
import shutil
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from configs.errors import ConfigError, Fault, LaunchError, RunError, UserError, nearest
from configs.load import Loaded, load, load_site, reload
from configs.rundir import RunDir, read_json, write_json, write_text
from launch.executors import EXECUTORS, require_slurm
from launch.plan import JobPlan, Machine, Topology, Where, plan_job


def run(args: argparse.Namespace) -> int:
    """The command. Returns the exit code; raises `UserError` for what the user can correct."""
    _check_flags(args)
    run_dir, loaded, plan = _resumed(args) if args.resume else _fresh(args)
    executor = EXECUTORS[plan.where]()
    request = executor.prepare(plan)
    if args.dry_run:
        from launch.describe import describe

        lacking = plan.where == "local" and plan.topology.device == "cuda" and (
            plan.topology.ranks_per_node > len(Machine.here().gpus))
        print(describe(loaded, request, lacking=lacking))
        return 0

    if plan.where == "slurm":
        require_slurm()
    _check_writable(run_dir)
    if not args.resume:
        from launch.prepare import facts_text, prepare

        with _pointing_into(loaded):
            facts = prepare(loaded.config, plan)
        print(facts_text(facts), flush=True)

    from launch import watch
    from launch.processes import ignoring_signals

    before = run_dir.newest_attempt()
    with ignoring_signals(signal.SIGINT), _all_or_nothing(run_dir):
        _write(run_dir, plan, loaded, new=not args.resume)
        watch.introduce(run_dir, plan)
        if plan.where != "debug":
            job = executor.submit(request)
            _write_job(run_dir, plan.where, job.id)
    if plan.where == "debug":
        executor.submit(request)
        print()
        return watch.conclude(run_dir)
    if plan.where == "local" and not args.detach:
        return watch.follow(run_dir, job, before)
    watch.announce(run_dir, job, plan.where)
    return 0


def _fresh(args: argparse.Namespace) -> tuple[RunDir, Loaded, JobPlan]:
    """A run that is to be made. Nothing is written yet."""
    config = next(word for word in args.words if "=" not in word)
    loaded = load(config, [word for word in args.words if "=" in word], _flags(args))
    run_dir = RunDir.new(Path(args.runs), loaded.config.name)
    where: Where = "debug" if args.debug else "slurm" if args.slurm else "local"
    machine = Machine.here()
    if args.dry_run and (loaded.config.launch.gpus or 0) > len(machine.gpus):
        machine = dataclasses.replace(machine, gpus=tuple(map(str, range(loaded.config.launch.gpus or 0))))
    with _pointing_into(loaded):
        plan = plan_job(loaded.config, run_dir=run_dir.path, where=where, machine=machine,
                        site=load_site(args.profile), folder=Path.cwd())
    return run_dir, loaded, plan


def _resumed(args: argparse.Namespace) -> tuple[RunDir, Loaded, JobPlan]:
    """A run that is to go on, where it ran before unless a flag says otherwise, with its own config and as many
    processes as before unless flags change them."""
    from launch.runs import find_run, handle, program, still_runs

    run_dir = find_run(args.resume, Path(args.runs))
    if read_json(run_dir.status).get("state") == "finished":
        raise RunError(Fault(what=f"run {run_dir.id} is finished", where=str(run_dir.path),
                             remedy="Start a new one, with more epochs for example."))
    if sign := still_runs(run_dir):
        raise RunError(Fault(what=f"run {run_dir.id} is still at work", where=str(run_dir.path), given=sign,
                             remedy=f"Wait for it, or stop it: {program('drumbeat')} stop {handle(run_dir)}"))
    plan = JobPlan.read(run_dir.plan)
    where: Where = "debug" if args.debug else "slurm" if args.slurm or plan.where == "slurm" else "local"
    asked = _flags(args)
    before = {} if plan.where == "debug" else _as_before(plan.topology, asked)
    loaded = reload(run_dir.config, args.words, before | asked)
    return run_dir, loaded, plan_job(
        loaded.config, run_dir=run_dir.path, where=where, machine=Machine.here(),
        site=load_site(args.profile) if args.profile else plan.site, folder=Path(plan.folder))


def _as_before(topology: Topology, asked: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that give a run as many ranks, each with as many threads: what it computes depends on both. Where other
    ranks are asked for, they share the cores anew."""
    ranks = {} if asked.keys() & {"launch.gpus", "launch.procs"} else {
        "launch.gpus": topology.ranks_per_node if topology.device == "cuda" else 0,
        "launch.procs": topology.ranks_per_node, "launch.cpus_per_rank": topology.cpus_per_rank}
    return {"launch.nodes": topology.nodes, **ranks}


def _write(run_dir: RunDir, plan: JobPlan, loaded: Loaded, *, new: bool) -> None:
    """The run's folder, with all that the workers need; for a run that goes on, its new plan and what else is new."""
    run_dir.path.mkdir(parents=True, exist_ok=not new)
    if new or any(not layer.origin.startswith("--") for layer in loaded.layers):
        write_text(run_dir.config, loaded.as_yaml())
    write_json(run_dir.plan, plan.as_json())
    _write_job(run_dir, plan.where, None)
    run_dir.write_status(state="pending", verdict="")
    link = run_dir.path.parent / f".latest.{os.getpid()}"
    link.symlink_to(run_dir.id)
    os.replace(link, run_dir.path.parent / "latest")


def _write_job(run_dir: RunDir, where: Where, job: str | None) -> None:
    """Where the run was started, for those who ask later whether it still is at work."""
    write_json(run_dir.job, {"where": where, "id": job, "host": socket.gethostname(),
                             "process": os.getpid() if where == "debug" else None})


@contextmanager
def _all_or_nothing(run_dir: RunDir) -> Iterator[None]:
    """Where the run cannot be started, its folder is as it was before: gone, if it is a new run's."""
    files = (run_dir.config, run_dir.plan, run_dir.status, run_dir.job)
    before = {file: file.read_text() for file in files if file.exists()}
    try:
        yield
    except Exception as error:
        for file, text in before.items():
            write_text(file, text)
        if not before:
            shutil.rmtree(run_dir.path, ignore_errors=True)
            latest = run_dir.path.parent / "latest"
            if latest.is_symlink() and not latest.exists():
                latest.unlink()
            _remove_empty(run_dir.path.parent, run_dir.path.parent.parent)
        if isinstance(error, OSError):
            raise LaunchError(Fault(what=f"the run folder cannot be written: {error.strerror}",
                                    where=str(error.filename or run_dir.path),
                                    remedy="Choose another place for it: --runs DIR")) from error
        raise


def _remove_empty(*folders: Path) -> None:
    """runs/NAME and runs/, if they hold nothing."""
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


@contextmanager
def _pointing_into(loaded: Loaded) -> Iterator[None]:
    """Faults raised inside name a dotted key of the config; from here on they name the file and line it stands in."""
    try:
        yield
    except UserError as error:
        raise type(error)(*map(loaded.located, error.faults)) from None


def _flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that are config values, by dotted key."""
    given = {"name": args.name, "launch.nodes": args.nodes, "launch.gpus": args.gpus, "launch.procs": args.procs}
    flags = {key: value for key, value in given.items() if value is not None}
    if args.procs is not None and args.gpus is None:
        flags["launch.gpus"] = 0
    return flags


def _check_flags(args: argparse.Namespace) -> None:
    """What is given beside each other, and should not be: all at once."""
    given = {f"--{name.replace('_', '-')}" for name, value in vars(args).items() if value}
    together = [("--debug", "--slurm"), ("--debug", "--detach"), ("--debug", "--nodes"), ("--slurm", "--detach"),
                ("--gpus", "--procs"), ("--resume", "--name")]
    faults = [(f"{one} and {other} exclude each other", "", f"Leave {other} out.")
              for one, other in together if {one, other} <= given]
    if args.debug and max(args.gpus or 0, args.procs or 0) > 1:
        faults.append(("--debug runs one rank, in this process", "", "Leave --gpus and --procs out."))
    if args.profile and not (args.slurm or args.resume):
        faults.append(("--profile describes a cluster, and this run is for this machine", f"--profile {args.profile}",
                       "Add --slurm, or leave --profile out."))
    configs = [word for word in args.words if "=" not in word]
    if args.resume == "":
        faults.append(("which run?", "--resume ''", "Name one by its folder, its id, or, the latest, by its name."))
    elif args.resume and configs:
        faults.append(("a run is resumed with its own config", " ".join(configs),
                       "Leave this out, or start a new run without --resume."))
    elif not args.resume and not configs:
        shipped = "configs/resnet50_xray_demo.yaml"
        faults.append(("which config?", " ".join(args.words), f"For example: python launch/run.py {shipped}"))
    elif len(configs) > 1:
        faults.append(("one config at a time", " ".join(configs), _instead_of(configs[1])))
    if faults:
        raise ConfigError(*(Fault(what=what, where="command line", given=what_was, remedy=remedy)
                            for what, what_was, remedy in faults))


def _instead_of(word: str) -> str:
    """What a second word without "=" may have been meant to be."""
    flag = nearest(word, ("debug", "detach", "dry-run", "gpus", "name", "nodes", "procs", "profile", "resume", "slurm"))
    if flag.startswith("Did"):
        return flag.replace("'", "'--", 1)
    return "Changes to it are written KEY=VALUE: batch_size=64"


def _check_writable(run_dir: RunDir) -> None:
    folder = run_dir.path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        reason = "you may not write there" if folder.is_dir() else "it is no folder"
        raise LaunchError(Fault(what=f"the run folder cannot be made: {reason}", where=str(folder),
                                given=str(run_dir.path), remedy="Choose another place for runs: --runs DIR"))


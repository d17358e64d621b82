"""python launch/run.py CONFIG [KEY=VALUE ...]: trains what a config describes, here or on a cluster.

The `run` command, and nothing else: argv -> Config -> JobPlan -> Request -> submit. `drumbeat run` is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # run as a file: Python has put launch/ first on the path, where the repository belongs
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import argparse
import dataclasses
import os

try:
    from configs.errors import ConfigError, Fault, LaunchError, RunError
    from configs.load import Loaded, load, load_site, read, to_yaml
    from configs.rundir import RunDir, read_json, write_json, write_text
except ModuleNotFoundError as absent:
    sys.exit(f"error: {absent.name} is not installed for {sys.executable}\n"
             f"  do     Use .venv/bin/python, which `make install` makes, or: pip install -e .")

from launch.plan import JobPlan, Machine, Topology, Where, plan_job

EXAMPLES = """examples:
  python launch/run.py configs/resnet50_xray_demo.yaml --procs 2
  python launch/run.py configs/resnet50_xray.yaml --gpus 8 batch_size=256
  python launch/run.py configs/resnet50_xray.yaml --slurm --nodes 2 --gpus 8
  python launch/run.py configs/resnet50_xray.yaml --debug
  python launch/run.py --resume resnet50_xray
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `run`."""
    parser.description = "Train what a config describes: on this machine, on a cluster, or in this very process."
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="a config file, or the name of a shipped one")
    parser.add_argument("assignments", nargs="*", metavar="KEY=VALUE", help="changes to it: phases.head.epochs=2")
    size = parser.add_argument_group("how many processes")
    size.add_argument("--gpus", type=int, metavar="N", help="ranks on each node, a GPU each (default: all there are)")
    size.add_argument("--procs", type=int, metavar="N", help="ranks on each node, on the CPU")
    size.add_argument("--nodes", type=int, metavar="K", help="nodes of a cluster (default: 1)")
    place = parser.add_argument_group("where")
    place.add_argument("--slurm", action="store_true", help="submit to SLURM and return")
    place.add_argument("--profile", metavar="SITE", help="the cluster: configs/clusters/SITE.yaml")
    place.add_argument("--debug", action="store_true",
                       help="in this process: one rank, no loader workers, breakpoints work")
    place.add_argument("--detach", action="store_true", help="start on this machine and return")
    what = parser.add_argument_group("which run")
    what.add_argument("--dry-run", action="store_true", help="print what would run, and do nothing")
    what.add_argument("--name", help="collect the run under runs/NAME (default: the config's name)")
    what.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are made (default: runs)")
    what.add_argument("--resume", metavar="RUN", help="go on with a run: its folder, id or name")


def run(args: argparse.Namespace) -> int:
    """The command. Returns the exit code; raises `UserError` for what the user can correct."""
    from launch.executors import EXECUTORS, require_slurm

    where: Where = "debug" if args.debug else "slurm" if args.slurm else "local"
    _check_flags(args)
    site = load_site(args.profile)
    if args.resume:
        from launch.runs import find_run

        run_dir = find_run(args.resume, Path(args.runs))
        loaded, before = resumed(run_dir, args), JobPlan.read(run_dir.plan)
        site = site if args.profile else before.site
    else:
        loaded = load(args.config, args.assignments, _flags(args))
        run_dir = RunDir.new(Path(args.runs), loaded.config.name)
    plan = plan_job(loaded.config, run_dir=run_dir.path, where=where, machine=Machine.here(), site=site, folder=Path.cwd())
    request = EXECUTORS[where]().prepare(plan)
    if args.dry_run:
        from launch.describe import describe

        print(describe(loaded, request))
        return 0

    if where == "slurm":
        require_slurm()
    _check_writable(run_dir)
    from launch.prepare import facts_line, prepare

    if not args.resume:
        facts = prepare(loaded.config, plan)
        print(facts_line(facts), flush=True)
        create(run_dir, loaded, plan, facts)
    else:
        write_json(run_dir.plan, plan.as_json())
    run_dir.write_status(state="pending", where=where, verdict="")
    job = EXECUTORS[where]().submit(request)
    run_dir.write_status(job=job.id)

    from launch.watch import announce, follow

    if where == "local" and not args.detach:
        return follow(run_dir, job)
    announce(run_dir, job, where)
    return 0


def create(run_dir: RunDir, loaded: Loaded, plan: JobPlan, facts: dict[str, object]) -> None:
    """The run's folder, with all that the workers need."""
    run_dir.path.mkdir(parents=True)
    write_text(run_dir.config, to_yaml(loaded.config))
    write_json(run_dir.plan, plan.as_json())
    write_json(run_dir.status, {"state": "pending", "facts": facts})
    link = run_dir.path.parent / f".latest.{os.getpid()}"
    link.symlink_to(run_dir.id)
    os.replace(link, run_dir.path.parent / "latest")


def resumed(run_dir: RunDir, args: argparse.Namespace) -> Loaded:
    """The config of a run that is to go on, with what the flags change about its processes."""
    from launch.runs import processes_of

    status = read_json(run_dir.status)
    if status.get("state") == "finished":
        raise RunError(Fault(what=f"run {run_dir.id} is finished", where=str(run_dir.path),
                             remedy="Start a new one, with more epochs for example."))
    if running := processes_of(run_dir):
        raise RunError(Fault(what=f"run {run_dir.id} is still running", where=str(run_dir.path),
                             given=f"process {running[0]}", remedy=f"Wait for it, or: drumbeat stop {run_dir.id}"))
    before: Topology = JobPlan.read(run_dir.plan).topology
    config = read(run_dir.config)
    asked = _flags(args)
    launch = dataclasses.replace(
        config.launch, nodes=asked.get("launch.nodes", before.nodes),
        gpus=asked.get("launch.gpus", before.ranks_per_node if before.device == "cuda" else 0),
        procs=asked.get("launch.procs", before.ranks_per_node))
    return Loaded(config=dataclasses.replace(config, launch=launch), sources={})


def _flags(args: argparse.Namespace) -> dict[str, object]:
    """The flags that are config values, by dotted key."""
    given: dict[str, object] = {"name": args.name, "launch.nodes": args.nodes, "launch.gpus": args.gpus,
                                "launch.procs": args.procs}
    flags = {key: value for key, value in given.items() if value is not None}
    if args.procs is not None and args.gpus is None:
        flags["launch.gpus"] = 0
    return flags


def _check_flags(args: argparse.Namespace) -> None:
    """Flags that contradict each other, all at once."""
    together = [("--debug", "--slurm"), ("--debug", "--detach"), ("--gpus", "--procs"), ("--debug", "--nodes"),
                ("--resume", "--name")]
    given = {f"--{name.replace('_', '-')}" for name, value in vars(args).items() if value not in (None, False)}
    faults = [Fault(what=f"{one} and {other} exclude each other", where="command line", remedy=f"Leave {other} out.")
              for one, other in together if {one, other} <= given]
    if args.resume and args.config:
        faults.append(Fault(what="a run is resumed with its own config", where="command line", given=args.config,
                            remedy="Leave the config out, or start a new run without --resume."))
    if not args.resume and not args.config:
        faults.append(Fault(what="which config?", where="command line",
                            remedy="For example: python launch/run.py configs/resnet50_xray_demo.yaml"))
    if faults:
        raise ConfigError(*faults)


def _check_writable(run_dir: RunDir) -> None:
    folder = run_dir.path
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise LaunchError(Fault(what="the run folder cannot be made", where=str(folder), given=str(run_dir.path),
                                remedy="Choose a folder you may write to: --runs DIR"))


if __name__ == "__main__":
    from launch.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))

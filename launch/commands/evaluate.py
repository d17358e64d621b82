"""drumbeat evaluate RUN: evaluates a checkpoint on one of the run's sets, on any number of ranks."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.launch.commands.arguments import add_checkpoint, add_new_code, add_run, add_trust, integer
from drumbeat.launch.plan.gpus import usable_together
from drumbeat.launch.plan.job import Machine

HELP = "evaluate a checkpoint on one of the run's sets"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--split", default="test", choices=["train", "validation", "test"], help="the set (default: "
                        "test)")
    parser.add_argument("--gpus", type=integer, metavar="N", help="number of GPUs (default: one, if there is any)")
    parser.add_argument("--procs", type=integer, metavar="N", help="number of ranks on the CPU")
    add_checkpoint(parser)
    add_new_code(parser)
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.preconditions import check_data, check_split
    from drumbeat.launch.runs.find import run_with_checkpoint
    from drumbeat.launch.runs.programs import run_on_run
    from drumbeat.launch.runs.trust import check_trusted

    chosen = ranks(args.gpus, args.procs) + (["--checkpoint", args.checkpoint] if args.checkpoint else [])
    found, config = run_with_checkpoint(args.run, Path(args.runs), args.checkpoint)
    check_trusted(found, args)
    check_split(config, args.split)
    check_data(config, fixed=True)
    return run_on_run("drumbeat.trainers.commands.evaluate", found, "--split", args.split, *chosen,
                      new_code=args.new_code)


def ranks(gpus: int | None, procs: int | None) -> list[str]:
    """The program's options for the number of ranks and the device; by default one rank, on a GPU if there is one.
    Raises `LaunchError` if that is not possible."""
    available = len(usable_together(Machine.here().gpus or ()))
    if gpus is not None and procs is not None:
        raise LaunchError(Fault(what="--gpus and --procs are mutually exclusive", where="command line",
                                remedy="Remove --procs."))
    for flag, count in (("--gpus", gpus), ("--procs", procs)):
        if count is not None and count < 1:
            raise LaunchError(Fault(what=f"{flag} must be at least 1", where="command line", given=f"{flag} {count}"))
    if gpus is not None and gpus > available:
        raise LaunchError(Fault(what=f"this machine has {available or 'no'} GPU{'s' * (available > 1)}", where="--gpus",
                                given=f"--gpus {gpus}", remedy="Use --procs N for ranks on the CPU."))
    cuda = gpus is not None or (procs is None and available > 0)
    return ["--ranks", str(gpus or procs or 1), "--device", "cuda" if cuda else "cpu"]

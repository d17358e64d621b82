"""drumbeat track RUN: sends a run to its trackers, or to another one."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.configs.trackers import KNOWN
from drumbeat.launch.commands.arguments import add_run, add_trust

HELP = "send a run to its trackers: the rest, or all of an older run"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--to", choices=sorted(KNOWN), help="the tracker (default: those of the run's config)")
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.errors import Fault, RunError
    from drumbeat.configs.load import read
    from drumbeat.configs.trackers import trackers
    from drumbeat.launch.attempts.beside import FORWARD
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.programs import run_on_run
    from drumbeat.launch.runs.trust import check_trusted

    found = find_run(args.run, Path(args.runs))
    check_trusted(found, args)
    names = [args.to] if args.to else [*trackers(read(found.config).tracking.to)]
    if not names:
        raise RunError(Fault(what="the config of the run names no tracker", where=str(found.config),
                             remedy=f"Choose one with --to: {', '.join(sorted(KNOWN))}"))
    return max(run_on_run(FORWARD, found, name) for name in names)

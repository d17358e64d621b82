"""drumbeat rerun RUN: starts the code and config of a run again, as a new run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drumbeat.launch.commands.arguments import add_no_snapshot, add_run, add_start_options, add_trust

if TYPE_CHECKING:
    from drumbeat.launch.start.start import Start

HELP = "start a run's code and config again, as a new run"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Start the code and config of a run again, as a new run."
    parser.usage = "%(prog)s RUN [KEY=VALUE ...] [options]"
    add_run(parser, runs=False)
    parser.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE",
                        help="changes to its config: batch_size=64")
    what = add_start_options(parser, "as many as that run", "as many as that run")
    what.add_argument("--name", help="the folder of the new run: runs/NAME (default: the same name)")
    what.add_argument("--new-code", action="store_true", help="use the code as it is now, not that run's copy")
    add_trust(what)
    add_no_snapshot(what)


def resolve(args: argparse.Namespace) -> Start:
    """What is to be started. Raises a `UserError`."""
    from drumbeat.launch.start.resolve import check_flags, resolve_rerun

    check_flags(args, rerun=True)
    return resolve_rerun(args, args.run)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.start.start import start

    return start(resolve(args), dry_run=args.dry_run, detach=args.detach)

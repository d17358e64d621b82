"""drumbeat resume RUN: resumes a run that has ended before it finished."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from drumbeat.launch.commands.arguments import add_run, add_start_options, add_trust

if TYPE_CHECKING:
    from drumbeat.launch.start.start import Start

HELP = "resume a run or a sweep"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = ("Resume a run that was stopped, failed or was killed: from its newest intact checkpoint, "
                          "with its own code and config, in the same place and on as many ranks as before.")
    parser.usage = "%(prog)s RUN [KEY=VALUE ...] [options]"
    add_run(parser, runs=False)
    parser.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE", help="changes to its config from here "
                        "on: phases.train.optimizer.lr=0.01, batch_size=32, data.workers=2")
    what = add_start_options(parser, "as many as before", "as many as before")
    what.add_argument("--new-code", action="store_true", help="use the code as it is now, not the run's copy")
    add_trust(what)
    what.add_argument("--take-over", action="store_true", help="resume although the run seems to be running on another "
                      "machine, which can then save nothing more")
    parser.set_defaults(name=None, no_snapshot=False)


def resolve(args: argparse.Namespace) -> Start:
    """What is to be started. Raises a `UserError`."""
    from drumbeat.launch.start.resolve import check_flags, resolve_resume

    check_flags(args, resume=True)
    return resolve_resume(args, args.run)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.start.start import start
    from drumbeat.launch.sweeps import control
    from drumbeat.launch.sweeps.find import find_sweep

    if sweep := find_sweep(args.run, Path(args.runs)):
        control.check_unchanged(args)
        print(control.resume(sweep, args.trust))
        return 0
    return start(resolve(args), dry_run=args.dry_run, detach=args.detach)

"""drumbeat logs RUN: prints the logs of the ranks."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run, integer

HELP = "print the logs of a run's ranks"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="print new lines until the run ends")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--rank", type=integer, default=0, metavar="R", help="the rank (default: 0)")
    which.add_argument("--all", action="store_true", help="all ranks and torchrun, each line with its name")
    which.add_argument("--errors", action="store_true", help="only the errors of all ranks, the earliest first")
    parser.add_argument("--attempt", type=attempt, metavar="K", help="an attempt, from 0, or all (default: "
                        "the newest; with --errors, the newest that has any)")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_view
    from drumbeat.launch.runs.logs import error_lines, log_lines
    from drumbeat.launch.runs.status import with_final_state

    view = find_view(args.run, Path(args.runs))
    one = None if args.attempt == "all" else args.attempt
    for line in error_lines(with_final_state(view), one) if args.errors else log_lines(
            view, rank=None if args.all else args.rank, follow=args.follow, attempt=args.attempt):
        print(line, flush=True)
    return 0


def attempt(text: str) -> int | str:
    """Parses the number of an attempt or 'all', for argparse."""
    return text if text == "all" else integer(text)

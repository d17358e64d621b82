"""drumbeat profile RUN: measures some steps of a running run, and traces them."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run, integer

HELP = "measure some steps of a running run, and trace them"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--steps", type=integer, default=5, metavar="N", help="steps to profile (default: 5)")
    parser.add_argument("--ranks", default="0", metavar="R", help="ranks that write a trace, such as 0,1 (default: "
                        "0); the times are those of all ranks")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.profile import profile

    profile(find_run(args.run, Path(args.runs)), args.steps, args.ranks)
    return 0

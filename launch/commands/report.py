"""drumbeat report RUN: writes a report of a run, as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "write a report of a run or a sweep, as one HTML file"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, help="the file to write (default: report.html in the run's "
                        "folder)")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.programs import start
    from drumbeat.launch.sweeps.find import find_sweep

    sweep = find_sweep(args.run, Path(args.runs))
    folder = sweep.path if sweep else find_run(args.run, Path(args.runs)).path
    return start("drumbeat.trainers.report.report", str(folder), str((args.out or folder / "report.html").absolute()),
                 user_code=False)

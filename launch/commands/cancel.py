"""drumbeat cancel RUN: ends a run at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "end a run or a sweep at once"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.stop import cancel
    from drumbeat.launch.sweeps import control
    from drumbeat.launch.sweeps.find import find_sweep

    if sweep := find_sweep(args.run, Path(args.runs)):
        print(control.cancel(sweep))
        return 0
    print(cancel(find_run(args.run, Path(args.runs), starting=True)))
    return 0

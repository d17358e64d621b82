"""drumbeat stop RUN: asks a run to save a checkpoint and exit."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "ask a run or a sweep to save and exit"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.stop import stop
    from drumbeat.launch.sweeps import control
    from drumbeat.launch.sweeps.find import find_sweep

    if sweep := find_sweep(args.run, Path(args.runs)):
        print(control.stop(sweep))
        return 0
    print(stop(find_run(args.run, Path(args.runs), starting=True)))
    return 0

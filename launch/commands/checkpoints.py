"""drumbeat checkpoints RUN: what is saved, and whether it is whole."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "list checkpoints"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.status import checkpoints_text

    print(checkpoints_text(find_run(args.run, Path(args.runs))))
    return 0

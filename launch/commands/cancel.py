"""drumbeat cancel RUN: ends a run at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "end a run now"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import look
    from drumbeat.launch.runs.stop import cancel

    print(cancel(look(args.run, Path(args.runs))))
    return 0

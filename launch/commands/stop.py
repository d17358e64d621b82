"""drumbeat stop RUN: asks a run to save and leave."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "ask a run to save and leave"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import look
    from drumbeat.launch.runs.stop import request_stop

    print(request_stop(look(args.run, Path(args.runs))))
    return 0

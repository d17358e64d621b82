"""drumbeat why RUN: explains why a run is not running, and what to do."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "explain why a run is not running, and what to do"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_view
    from drumbeat.launch.runs.status import with_final_state
    from drumbeat.launch.runs.why import why

    print(why(with_final_state(find_view(args.run, Path(args.runs)))))
    return 0

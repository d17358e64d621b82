"""drumbeat status RUN: how a run is doing, in a few lines or as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "show how a run is doing"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="all that is known of it, for a program")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.listing import as_json, facts
    from drumbeat.launch.runs.status import gone, status_text

    found = find_run(args.run, Path(args.runs))
    print(as_json(facts(found) | gone(found)) if args.json else status_text(found))
    return 0

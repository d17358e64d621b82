"""drumbeat status RUN: shows the state of a run, in a few lines or as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "show the state and progress of a run or a sweep"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print all fields as JSON")


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.run.files import json_text
    from drumbeat.launch.runs.find import find_view
    from drumbeat.launch.runs.listing import facts
    from drumbeat.launch.runs.status import status_text, with_final_state
    from drumbeat.launch.sweeps.find import find_sweep
    from drumbeat.launch.sweeps.show import sweep_json, sweep_status

    if sweep := find_sweep(args.run, Path(args.runs)):
        print(json_text(sweep_json(sweep)) if args.json else sweep_status(sweep))
        return 0
    view = with_final_state(find_view(args.run, Path(args.runs)))
    print(json_text(facts(view)) if args.json else status_text(view))
    return 0

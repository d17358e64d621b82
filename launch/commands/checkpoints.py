"""drumbeat checkpoints RUN: lists the checkpoints, and which of them are damaged."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_run

HELP = "list checkpoints"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("--json", action="store_true", help="print all fields and all metrics as JSON")


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.run.files import json_text
    from drumbeat.launch.runs.checkpoints import checkpoints_text, facts
    from drumbeat.launch.runs.find import find_run

    run = find_run(args.run, Path(args.runs))
    print(json_text(facts(run)) if args.json else checkpoints_text(run))
    return 0

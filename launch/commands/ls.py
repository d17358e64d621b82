"""drumbeat ls: the runs in a table, or as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_runs

HELP = "list runs and how they are doing"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="the older ones too")
    parser.add_argument("--json", action="store_true", help="all runs, with all that is known of them, for a program")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import all_runs
    from drumbeat.launch.runs.listing import as_json, damaged_facts, each, facts, show

    runs = all_runs(Path(args.runs))
    if args.json:
        print(as_json(list(each(reversed(runs), facts, damaged_facts))))
    else:
        show(runs, Path(args.runs), every=args.all)
    return 0

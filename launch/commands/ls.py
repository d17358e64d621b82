"""drumbeat ls: lists runs, as a table or as JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_runs

HELP = "list runs"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="list older runs, too")
    parser.add_argument("--json", action="store_true", help="print all fields of all runs as JSON")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.run.files import json_text
    from drumbeat.launch.runs.find import all_runs
    from drumbeat.launch.runs.listing import damaged_facts, describe_each, facts, print_table
    from drumbeat.launch.sweeps.find import all_sweeps
    from drumbeat.launch.sweeps.show import listed

    runs = all_runs(Path(args.runs))
    if args.json:
        print(json_text(list(describe_each(runs[::-1], facts, damaged_facts))))
    else:
        sweeps, trials = listed(all_sweeps(Path(args.runs)))
        print_table([run for run in runs if run.path not in trials], Path(args.runs), every=args.all, sweeps=sweeps)
    return 0

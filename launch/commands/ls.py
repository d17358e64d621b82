"""drumbeat ls: lists runs, as a table or as JSON."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.launch.commands.arguments import add_runs

HELP = "list runs"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="list older runs, too")
    parser.add_argument("--size", action="store_true", help="add the size of each run's folder")
    parser.add_argument("--watch", action="store_true", help="renew the table every two seconds, until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print all fields of all runs as JSON")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.configs.run.files import json_text
    from drumbeat.launch.runs.find import all_runs
    from drumbeat.launch.runs.listing import damaged_facts, describe_each, facts, print_table, sized_facts

    if args.watch:
        return _watch(args)
    runs = all_runs(Path(args.runs))
    if args.json:
        print(json_text(list(describe_each(runs[::-1], sized_facts if args.size else facts, damaged_facts))))
    else:
        sweeps, trials = _sweeps(args)
        print_table([run for run in runs if run.path not in trials], Path(args.runs), every=args.all, sizes=args.size,
                    sweeps=sweeps)
    return 0


def _sweeps(args: argparse.Namespace) -> tuple[dict[str, tuple[str, ...]], set[Path]]:
    """The rows of the sweeps by their ids, and the folders of their trials."""
    from drumbeat.launch.sweeps.find import all_sweeps
    from drumbeat.launch.sweeps.show import listed

    return listed(all_sweeps(Path(args.runs)), sizes=args.size)


def _watch(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.watch import watch

    if args.json or args.all:
        raise ConfigError(Fault(what=f"--watch and {'--json' if args.json else '--all'} are mutually exclusive",
                                where="command line", remedy="--watch shows the newest runs, one screen of them."))
    if not sys.stdout.isatty():
        raise ConfigError(Fault(what="--watch needs a terminal", where="command line", given="standard output is none",
                                remedy="Without --watch the table is printed once: drumbeat ls"))
    watch(Path(args.runs), lambda: _sweeps(args), sizes=args.size)
    return 0

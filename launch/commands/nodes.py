"""drumbeat nodes: lists the nodes that are not used for a day because an attempt failed on them, or forgets some."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_runs

HELP = "list nodes that jobs are submitted without, or forget them"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--forget", nargs="+", default=[], metavar="NODE", help="use these nodes again: n1, n[2-4]")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.nodes import forget_nodes, nodes_text

    runs = Path(args.runs)
    print(forget_nodes(runs, args.forget) if args.forget else nodes_text(runs))
    return 0

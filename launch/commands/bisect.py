"""drumbeat bisect A B: the first step in which two runs differ."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_runs, add_trust

HELP = "find the first step in which two runs differ, and why"

EXIT_CODES = """\
exit codes:
  0  no step differs
  1  a step differs
  2  the runs cannot be compared"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = """\
Find the first step in which two runs differ, from their step logs. Then compute
that step of both again, from their nearest checkpoints, and name the layer and
the samples that differ in it. The runs themselves do not change."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EXIT_CODES
    for name in ("A", "B"):
        parser.add_argument(f"run_{name.lower()}", metavar=name,
                            help="a run's folder, its id or a unique prefix of it, or a name")
    parser.add_argument("--logs-only", action="store_true", help="compare the logs, and compute nothing again")
    add_runs(parser)
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.replay.bisect import bisect
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.trust import check_trusted

    one, other = (find_run(name, Path(args.runs)) for name in (args.run_a, args.run_b))
    if not args.logs_only:
        check_trusted(one, args)
        check_trusted(other, args)
    return bisect(one, other, replays=not args.logs_only)

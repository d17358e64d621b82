"""drumbeat clean [RUN ...]: removes what nobody needs any more of finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.configs.errors import ConfigError, Fault
from drumbeat.launch.commands.arguments import add_runs

HELP = "remove what finished runs no longer need"

STAYS = """\
of a finished run stay: the best checkpoint, the newest one, those that its
config keeps (checkpoints.keep_best, keep_every_epochs), the records and step
logs of all attempts, the logs of the newest attempt, and the curves

exit codes:
  0  done, or nothing was to be done
  1  something could not be removed
  2  a run that was named is not finished"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = """\
Remove older checkpoints of finished runs, the logs of their earlier attempts,
and what replays and killed commands have left. Prints what would go, and asks.
Runs that are not finished do not change."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, STAYS
    parser.add_argument("run", nargs="*", metavar="RUN", help="runs as for `status` (default: all runs, and what "
                        "replays and killed commands have left)")
    parser.add_argument("--all-but-best", action="store_true", help="keep only the best checkpoint: also remove the "
                        "weights of the newest one, those that the config keeps, and compiled kernels")
    parser.add_argument("--caches", action="store_true", help="also remove decoded images (data.cache) of datasets "
                        "that no run in DIR uses; runs elsewhere decode them again")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.clean import clean
    from drumbeat.launch.runs.find import find_run

    runs = Path(args.runs)
    if args.caches and args.run:
        raise ConfigError(Fault(what="--caches looks at all runs", where="command line", given=" ".join(args.run),
                                remedy="Remove --caches, or the runs."))
    named = list(dict.fromkeys(find_run(text, runs) for text in args.run))
    return clean(named, runs, all_but_best=args.all_but_best, caches=args.caches, yes=args.yes)

"""drumbeat clean [RUN ...]: removes what nobody needs any more of finished runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from drumbeat.configs.errors import ConfigError, Fault, RunError
from drumbeat.launch.commands.arguments import add_runs

if TYPE_CHECKING:
    from drumbeat.configs.run.folder import RunDir
    from drumbeat.configs.run.sweep import SweepDir

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
    parser.add_argument("run", nargs="*", metavar="RUN", help="runs or sweeps (default: all runs, and what replays "
                        "and killed commands have left)")
    parser.add_argument("--all-but-best", action="store_true", help="keep only the best checkpoint: also remove the "
                        "weights of the newest one, those that the config keeps, and compiled kernels")
    parser.add_argument("--caches", action="store_true", help="also remove decoded images (data.cache) of datasets "
                        "that no run in DIR uses; runs elsewhere decode them again")
    parser.add_argument("--yes", action="store_true", help="do not ask")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.clean import clean
    from drumbeat.launch.sweeps.find import all_sweeps

    runs = Path(args.runs)
    if args.caches and args.run:
        raise ConfigError(Fault(what="--caches looks at all runs", where="command line", given=" ".join(args.run),
                                remedy="Remove --caches, or the runs."))
    busy = {run.path for sweep in all_sweeps(runs) if sweep.queue_is_running() for run in _trials(sweep)}
    named = list(dict.fromkeys(run for text in args.run for run in _named(text, runs)))
    return clean(named, runs, all_but_best=args.all_but_best, caches=args.caches, yes=args.yes, busy=busy)


def _named(text: str, runs: Path) -> list[RunDir]:
    """The run that a text names, or the finished trials of a sweep. Raises `RunError`."""
    from drumbeat.configs.run.records import Status
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.sweeps.find import find_sweep

    if (sweep := find_sweep(text, runs)) is None:
        return [find_run(text, runs)]
    if finished := [run for run in _trials(sweep) if (found := Status.read(run.status)) and found.state == "finished"]:
        return finished
    raise RunError(Fault(what=f"sweep {sweep.name} has no finished trials", where=str(sweep.path),
                         remedy="Only finished runs are cleaned."))


def _trials(folder: SweepDir) -> list[RunDir]:
    """The runs of the trials of a sweep, of which some may not exist yet. Raises `DamagedError`."""
    sweep = folder.read()
    return [folder.run(sweep, trial.number) for trial in sweep.trials]

"""drumbeat compare RUN RUN ...: what differs between runs, and whether one is better than another."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.arguments import add_checkpoint, add_runs

HELP = "compare runs: config, code, metrics, predictions"

DESCRIPTION = """\
Compare runs that have ended with the first one: the values of their configs,
their code and versions, their metrics (runs that differ in the seed only are
taken together), and their predictions for the same samples, if `drumbeat
evaluate` has written them. Writes a report with their curves."""

EXAMPLES = """examples:
  %(prog)s resnet50_xray wide
  %(prog)s runs/resnet50_xray/* runs/wide/*
  %(prog)s resnet50_xray wide --split validation --group '(person\\d+)_'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.epilog, parser.formatter_class = EXAMPLES, argparse.RawDescriptionHelpFormatter
    parser.add_argument("compared", nargs="+", metavar="RUN", help="two or more runs: folders, ids, unique prefixes of "
                        "ids, or names")
    parser.add_argument("--split", choices=["train", "validation", "test"], help="the set whose predictions are "
                        "compared (default: test, or else another one that all runs are evaluated on)")
    add_checkpoint(parser)
    parser.add_argument("--group", metavar="PATTERN", help="a regular expression with one group in parentheses that "
                        "finds the patient (or the like) in the name of a sample (default: the set's own groups)")
    parser.add_argument("--out", metavar="FILE", default="comparison.html", help="the report to write (default: "
                        "comparison.html)")
    parser.add_argument("--json", action="store_true", help="print all as JSON, and write no report")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.commands.doctor import checked_pattern
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.programs import start

    runs = list(dict.fromkeys(find_run(text, Path(args.runs)) for text in args.compared))
    _check(runs)
    options = [word for option in ("split", "checkpoint", "out") if (value := getattr(args, option))
               for word in (f"--{option}", value)]
    group = ["--group", checked_pattern(args.group)] if args.group else []
    return start("drumbeat.trainers.comparison.compare", *(str(run.path) for run in runs), *options, *group,
                 *(["--json"] if args.json else []), user_code=False)


def _check(runs: list[RunDir]) -> None:
    """Raises `RunError` for a single run, and for one that has not ended."""
    from drumbeat.configs.run.view import View
    from drumbeat.launch.backends.typed import command
    from drumbeat.launch.runs.status import with_final_state

    if len(runs) < 2:
        raise RunError(Fault(what="a comparison needs two runs", where="command line", given=runs[0].id,
                             remedy="Name another one: drumbeat ls"))
    for run in runs:
        view = with_final_state(View.read(run))
        if not view.ended:
            raise RunError(Fault(what=f"run {run.id} has not ended: its metrics still change", where=str(run.path),
                                 given=f"state: {view.state}",
                                 remedy=f"Wait until it ends, or stop it: {command('stop', run)}"))

"""drumbeat doctor CONFIG: checks the data before training. With --run RUN: finds labels that a model contradicts."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from drumbeat.configs.errors import Fault, LaunchError
from drumbeat.launch.commands.arguments import add_checkpoint, add_config, add_new_code, add_runs, add_trust

HELP = "check a config's data before training, or a run's labels"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, " [--all] [--group PATTERN]\n"
                       "       %(prog)s --run RUN [--checkpoint WHICH]", optional=True)
    parser.add_argument("--all", action="store_true", help="read every sample, not a few hundred")
    parser.add_argument("--group", metavar="PATTERN", help="a regular expression with one group in parentheses that "
                        "finds the patient, for example, in a sample's name")
    parser.add_argument("--sheet", metavar="FILE", help="the image of samples to write (default: doctor.png, or "
                        "suspects.png with --run)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    labels = parser.add_argument_group("training samples whose labels may be wrong")
    labels.add_argument("--run", metavar="RUN", help="list the training samples with the largest losses under a run's "
                        "weights")
    add_checkpoint(labels)
    add_runs(labels)
    add_new_code(labels)
    add_trust(labels)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import run_on_config

    if args.run:
        return _suspects(args)
    group = ["--group", checked_pattern(args.group)] if args.group else []
    return run_on_config("drumbeat.trainers.commands.doctor", args.words, *group, "--sheet", args.sheet or "doctor.png",
                         *(["--all"] if args.all else []), *(["--json"] if args.json else []))


def checked_pattern(pattern: str) -> str:
    """The pattern of --group. Raises `LaunchError`."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise LaunchError(Fault(what=f"--group is not a regular expression: {error}", where="command line",
                                given=pattern)) from None
    if groups != 1:
        raise LaunchError(Fault(what="--group must have one group in parentheses", where="command line", given=pattern,
                                remedy="For example: --group '(patient\\d+)_'"))
    return pattern


def _suspects(args: argparse.Namespace) -> int:
    """Examines the labels of a run's training set."""
    from drumbeat.configs.preconditions import check_data
    from drumbeat.launch.runs.find import run_with_checkpoint
    from drumbeat.launch.runs.programs import run_on_run
    from drumbeat.launch.runs.trust import check_trusted

    if args.words:
        raise LaunchError(Fault(what="a config and --run are mutually exclusive", where="command line",
                                given=" ".join(args.words), remedy="The run has its own config: leave CONFIG out."))
    found, config = run_with_checkpoint(args.run, Path(args.runs), args.checkpoint)
    check_trusted(found, args)
    check_data(config, fixed=True)
    return run_on_run("drumbeat.trainers.commands.suspects", found, "--sheet", args.sheet or "suspects.png",
                      *(["--checkpoint", args.checkpoint] if args.checkpoint else []),
                      *(["--json"] if args.json else []), new_code=args.new_code)

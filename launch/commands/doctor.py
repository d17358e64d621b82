"""drumbeat doctor CONFIG: checks the data before training."""

from __future__ import annotations

import argparse

from drumbeat.launch.commands.arguments import add_config

HELP = "check a config's data before training"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, " [--all] [--sheet FILE]")
    parser.add_argument("--all", action="store_true", help="read every sample, not a few hundred")
    parser.add_argument("--sheet", default="doctor.png", metavar="FILE", help="the image of samples to write (default: "
                        "doctor.png)")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import run_on_config

    return run_on_config("drumbeat.trainers.commands.doctor", args.words, *(["--all"] if args.all else []), "--sheet",
                     args.sheet)

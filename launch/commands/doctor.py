"""drumbeat doctor CONFIG: a look at the data before hours are spent on it."""

from __future__ import annotations

import argparse

from drumbeat.launch.commands.arguments import add_config

HELP = "look at a config's data before training on it"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, " [--all] [--sheet FILE]")
    parser.add_argument("--all", action="store_true", help="read every sample, not some hundred")
    parser.add_argument("--sheet", default="doctor.png", metavar="FILE", help="where to draw what the model will see "
                        "(default: doctor.png)")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import on_config

    return on_config("drumbeat.trainers.commands.doctor", args.words, *(["--all"] if args.all else []), "--sheet",
                     args.sheet)

"""drumbeat show CONFIG: prints the model layer by layer, its FLOPs and the memory of a rank."""

from __future__ import annotations

import argparse

from drumbeat.launch.commands.arguments import add_config

HELP = "show a config's model, its cost and its inputs"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, " [--sheet FILE]")
    parser.add_argument("--sheet", default="show.png", metavar="FILE", help="the image of training inputs to write "
                        "(default: show.png)")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import run_on_config

    return run_on_config("drumbeat.trainers.commands.show", args.words, "--sheet", args.sheet)

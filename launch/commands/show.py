"""drumbeat show CONFIG: the model layer by layer, its FLOPs and the memory of a rank."""

from __future__ import annotations

import argparse

from drumbeat.launch.commands.arguments import add_config

HELP = "show a config's model, what it costs and what it sees"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, " [--sheet FILE]")
    parser.add_argument("--sheet", default="show.png", metavar="FILE", help="where to draw training samples as the "
                        "model sees them (default: show.png)")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import on_config

    return on_config("drumbeat.trainers.commands.show", args.words, "--sheet", args.sheet)

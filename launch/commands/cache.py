"""drumbeat cache CONFIG: images decoded ahead of the runs that read them."""

from __future__ import annotations

import argparse

from drumbeat.launch.commands.arguments import add_config

HELP = "decode a config's images ahead of its runs"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import on_config

    return on_config("drumbeat.trainers.commands.cache", args.words)

"""drumbeat cache CONFIG: decodes the images of a config before its runs."""

from __future__ import annotations

import argparse

from drumbeat.launch.commands.arguments import add_config

HELP = "decode a config's images before its runs"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser, "")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import run_on_config

    return run_on_config("drumbeat.trainers.commands.cache", args.words)

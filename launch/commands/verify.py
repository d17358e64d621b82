"""drumbeat verify RUN: proves which samples a run has used."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_new_code, add_run

HELP = "prove which samples a run has used"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    add_new_code(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.programs import run_on_run

    return run_on_run("drumbeat.trainers.commands.verify", find_run(args.run, Path(args.runs)), new_code=args.new_code)

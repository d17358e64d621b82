"""drumbeat export RUN FILE: writes the weights of a run to one file."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_checkpoint, add_run

HELP = "write a run's weights to one file"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run(parser)
    parser.add_argument("file", metavar="FILE", type=Path, help="the file to write: FILE.pt, .pth or .safetensors")
    add_checkpoint(parser)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.find import find_run
    from drumbeat.launch.runs.programs import start

    folder = find_run(args.run, Path(args.runs)).path
    return start("drumbeat.trainers.commands.export", str(folder), str(args.file.absolute()),
                 *([args.checkpoint] if args.checkpoint else []), user_code=False)

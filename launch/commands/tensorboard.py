"""drumbeat tensorboard [RUN ...]: starts TensorBoard on this machine for these runs, or for all."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_runs, integer

HELP = "show runs in TensorBoard, on this machine"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", nargs="*", help="runs by folder, id or name (default: all)")
    add_runs(parser)
    parser.add_argument("--port", type=integer, default=6006, metavar="P", help="the first port to try (default: 6006)")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.tensorboard import serve

    return serve(args.run, Path(args.runs), args.port)

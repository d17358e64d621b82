"""drumbeat run CONFIG [KEY=VALUE ...]: trains what a config describes, on this machine or on a cluster."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from drumbeat.launch.commands.arguments import add_no_snapshot, add_start_options, add_trust

if TYPE_CHECKING:
    from drumbeat.launch.start.start import Start

HELP = "train what a config describes"

USAGE = """%(prog)s CONFIG [KEY=VALUE ...] [options]
       %(prog)s --resume RUN [KEY=VALUE ...] [options]"""

EXAMPLES = """examples:
  %(prog)s configs/resnet50_xray_demo.yaml --procs 2
  %(prog)s resnet50_xray --gpus 8 batch_size=256
  %(prog)s resnet50_xray --slurm --nodes 2 --gpus 8
  %(prog)s resnet50_xray --here
  %(prog)s resnet50_xray --debug phases.head.epochs=1
  %(prog)s --resume resnet50_xray
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Train what a config describes, on this machine or on a cluster."
    parser.usage, parser.epilog = USAGE, EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("words", nargs="*", metavar="CONFIG", help="a config file or the name of a shipped config, "
                        "followed by changes to it, KEY=VALUE")
    what = add_start_options(parser, "all; required with --slurm", "1, or all with --here")
    what.add_argument("--name", help="the folder of the run: runs/NAME (default: the config's name)")
    what.add_argument("--resume", metavar="RUN", help="resume a run, like drumbeat resume RUN")
    add_trust(what)
    add_no_snapshot(what)
    parser.set_defaults(new_code=False, take_over=False)


def resolve(args: argparse.Namespace) -> Start:
    """What is to be started. Raises a `UserError`."""
    from drumbeat.launch.start.resolve import check_flags, resolve_resume, resolve_run

    check_flags(args, resume=args.resume is not None)
    return resolve_run(args) if args.resume is None else resolve_resume(args, args.resume)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.start.start import start

    return start(resolve(args), dry_run=args.dry_run, detach=args.detach)

"""drumbeat resume RUN: a run that was stopped or killed goes on."""

from __future__ import annotations

import argparse

from drumbeat.launch.commands.arguments import add_run, add_start_options

HELP = "resume a run that was stopped or killed"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = ("Resume a run that was stopped or killed: from its newest good checkpoint, with the code "
                          "and config it was submitted with, where it ran, on as many ranks.")
    parser.usage = "%(prog)s RUN [KEY=VALUE ...] [options]"
    add_run(parser, runs=False)
    parser.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE", help="changes that cannot alter its "
                        "results: data.workers=2, checkpoints.keep=3")
    what = add_start_options(parser, "as before", "as before")
    what.add_argument("--new-code", action="store_true", help="with the code as it is now, not as it was submitted")
    what.add_argument("--take-over", action="store_true", help="although it seems to be running on another machine, "
                      "which can save nothing more then")
    parser.set_defaults(name=None, no_snapshot=False)


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.start.ask import ask_resume, check_flags
    from drumbeat.launch.start.start import start

    check_flags(args, resume=True)
    return start(ask_resume(args, args.run), dry_run=args.dry_run, detach=args.detach)

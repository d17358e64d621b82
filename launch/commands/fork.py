"""drumbeat fork RUN --at STEP: starts a new run that shares the steps of a run up to there."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.arguments import add_run, add_start_options, add_trust

HELP = "start a new run from a step of a run, with changes"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = ("Start a new run that shares the steps of a run up to one of them, and has another config "
                          "from there on: what that run would have computed with the changes, bit for bit.")
    parser.usage = "%(prog)s RUN --at STEP [KEY=VALUE ...] [options]"
    add_run(parser, runs=False)
    parser.add_argument("words", nargs="*", default=[], metavar="KEY=VALUE", help="changes to its config from that "
                        "step on: phases.train.optimizer.lr=0.01")
    parser.add_argument("--at", required=True, metavar="STEP", help="the last step that both share, or a percentage of "
                        "the run's steps: 600, 60%%")
    what = add_start_options(parser, "as many as that run", "as many as that run")
    what.add_argument("--name", help="the folder of the new run: runs/NAME (default: the same name)")
    what.add_argument("--new-code", action="store_true", help="use the code as it is now, not that run's copy")
    add_trust(what)
    parser.set_defaults(no_snapshot=False)


def run(args: argparse.Namespace) -> int:
    return _fork(args)[1]


def fork(parent: RunDir, at: int | str, changes: Sequence[str] = (), *, options: Sequence[str] = ("--detach",)
         ) -> RunDir:
    """Starts a fork of a run as the command does, and returns its folder. `at` is a step or a percentage ("60%"),
    `changes` are KEY=VALUE, `options` are those of the command. Raises `UserError`, and leaves nothing behind."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    args = parser.parse_args([str(parent.path), f"--at={at}", f"--runs={parent.all_runs}", *options])
    args.words = [*changes]
    args.typed = shlex.join(["drumbeat", "fork", str(parent.path), f"--at={at}", *changes])
    return _fork(args)[0]


def _fork(args: argparse.Namespace) -> tuple[RunDir, int]:
    """Starts the fork. Returns its folder and the exit code."""
    from drumbeat.launch.start.resolve import check_flags, resolve_fork
    from drumbeat.launch.start.start import start

    check_flags(args, fork=True)
    spec = resolve_fork(args, args.run)
    return spec.run_dir, start(spec, dry_run=args.dry_run, detach=args.detach)

"""drumbeat: the table of contents of all verbs, a few lines each."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from configs.errors import ConfigError, Fault, UserError, nearest
from launch import run


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb. A user's mistake is one screen on stderr and exit code 2."""
    try:
        return int((args := parse(argv)).verb(args))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, KEY=VALUE also behind options, where argparse alone would not look for them."""
    args, rest = parser().parse_known_args(argv)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word or "assignments" not in args]
    if unknown:
        options = [f"--{name.replace('_', '-')}" for name in vars(args) if name not in ("verb", "assignments")]
        raise ConfigError(*(Fault(what=f"unexpected '{word}'", where="command line",
                                  remedy=nearest(word, options) if word.startswith("-") else "See --help.")
                            for word in unknown))
    if rest:
        args.assignments = [*args.assignments, *rest]
    return args


def parser() -> argparse.ArgumentParser:
    """All verbs and their options."""
    top = argparse.ArgumentParser(prog="drumbeat", description="Trains PyTorch models from one config, on any machine.")
    verbs = top.add_subparsers(metavar="VERB", required=True)

    verb = verbs.add_parser("run", help="train what a config describes")
    run.add_arguments(verb)
    verb.set_defaults(verb=run.run)

    verb = verbs.add_parser("status", help="how a run is doing")
    _add_run(verb)
    verb.set_defaults(verb=status)

    verb = verbs.add_parser("logs", help="what the ranks of a run printed")
    _add_run(verb)
    verb.add_argument("-f", "--follow", action="store_true", help="go on as the run goes on")
    verb.add_argument("--rank", type=int, default=0, metavar="R", help="whose (default: 0)")
    verb.set_defaults(verb=logs)

    verb = verbs.add_parser("stop", help="ask a run to save and leave")
    _add_run(verb)
    verb.set_defaults(verb=stop)

    verb = verbs.add_parser("demo-data", help="write synthetic data to try things with")
    verb.add_argument("kind", choices=["xray"], help="xray: synthetic chest radiographs in Kaggle's folders")
    verb.add_argument("folder", metavar="DIR", type=Path)
    verb.set_defaults(verb=demo_data)
    return top


def status(args: argparse.Namespace) -> int:
    from launch.runs import find_run, status_text

    print(status_text(find_run(args.run, Path(args.runs))))
    return 0


def logs(args: argparse.Namespace) -> int:
    from launch.runs import find_run, log_lines

    for line in log_lines(find_run(args.run, Path(args.runs)), rank=args.rank, follow=args.follow):
        print(line, flush=True)
    return 0


def stop(args: argparse.Namespace) -> int:
    from launch.runs import ask_to_stop, find_run

    print(ask_to_stop(find_run(args.run, Path(args.runs))))
    return 0


def demo_data(args: argparse.Namespace) -> int:
    """In a process of its own: the login node's side imports nothing of data/."""
    import subprocess

    from configs.load import ROOT

    command = [sys.executable, "-m", "data.demo", args.kind, str(args.folder.absolute())]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _add_run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("run", metavar="RUN", help="a run's folder, its id or the beginning of it, or a name")
    verb.add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")


if __name__ == "__main__":
    sys.exit(main())

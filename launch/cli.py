"""drumbeat: the table of contents of all verbs, a few lines each."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from configs.errors import ConfigError, Fault, UserError, nearest
from launch import run

VERBS = {
    "run": "train what a config describes",
    "status": "how a run is doing",
    "logs": "what the ranks of a run printed",
    "stop": "ask a run to save and leave",
    "demo-data": "write synthetic data to try things with",
}

ABOUT = "Trains PyTorch models from one config, on any machine.\n\n" + "\n".join(
    ["verbs:", *(f"  {name:<12}{what}" for name, what in VERBS.items()), "", "drumbeat VERB --help says more."])


def main(argv: Sequence[str] | None = None, program: str = "drumbeat run") -> int:
    """Runs one verb. A user's mistake is one screen on stderr and exit code 2."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        args = parse(words, program)
        code = int(args.verb(args))
        sys.stdout.flush()
        return code
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # as in `drumbeat logs RUN | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def parse(words: list[str], program: str = "drumbeat run") -> argparse.Namespace:
    """The arguments, KEY=VALUE also behind options, where argparse alone would not look for them."""
    top, verbs = parsers(program)
    if not words:
        words = ["--help"]
    if words[0] not in verbs and not words[0].startswith("-"):
        raise ConfigError(Fault(what=f"there is no verb '{words[0]}'", where="command line",
                                remedy=nearest(words[0], verbs)))
    args, rest = top.parse_known_args(words)
    dashed = [word for word in rest if word.startswith("-")]
    if unknown := dashed or ([] if "words" in args else rest):
        options = [name for action in verbs[words[0]]._actions for name in action.option_strings]
        raise ConfigError(*(Fault(what=f"unexpected '{word}'", where="command line", remedy=_instead(word, options))
                            for word in unknown))
    if rest:
        args.words = [*args.words, *rest]
    return args


class Parser(argparse.ArgumentParser):
    """argparse, with errors that look like all others."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(Fault(what=message.removeprefix("argument "), where="command line",
                                remedy=f"See: {self.prog} --help"))


def parsers(program: str) -> tuple[Parser, dict[str, Parser]]:
    """All verbs and their options."""
    top = Parser(prog="drumbeat", usage="drumbeat VERB ...", description=ABOUT, allow_abbrev=False,
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    group = top.add_subparsers(prog="drumbeat", metavar="VERB", help=argparse.SUPPRESS, required=True)
    verbs = {name: group.add_parser(name, description=what.capitalize() + ".", allow_abbrev=False)
             for name, what in VERBS.items()}

    verbs["run"].prog = program
    run.add_arguments(verbs["run"])
    verbs["run"].set_defaults(verb=run.run)

    for name, function in (("status", status), ("logs", logs), ("stop", stop)):
        verbs[name].add_argument("run", metavar="RUN", help="a run's folder, its id or the beginning of it, or a name")
        verbs[name].add_argument("--runs", default="runs", metavar="DIR", help="where run folders are (default: runs)")
        verbs[name].set_defaults(verb=function)
    verbs["logs"].add_argument("-f", "--follow", action="store_true", help="go on as the run goes on")
    verbs["logs"].add_argument("--rank", type=run.whole, default=0, metavar="R", help="whose (default: 0)")

    verbs["demo-data"].add_argument("kind", choices=["xray"], help="synthetic chest radiographs in Kaggle's folders")
    verbs["demo-data"].add_argument("folder", metavar="DIR", type=Path, help="where to write them")
    verbs["demo-data"].set_defaults(verb=demo_data)
    return top, verbs


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


def _instead(word: str, options: list[str]) -> str:
    """What to write in place of a word that nothing takes."""
    if not word.startswith("-"):
        return "See --help."
    name, equals, _ = word.partition("=")
    remedy = nearest(name, options)
    if equals and not remedy.startswith("Did"):
        return f"Changes to the config have no dashes: {word.lstrip('-')}"
    return remedy


if __name__ == "__main__":
    sys.exit(main())

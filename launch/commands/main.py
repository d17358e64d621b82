"""drumbeat COMMAND ...: the table of all commands, and how errors are shown.

A command is a module here: its HELP in one line, `add_arguments(parser)`, and `run(args)`, which returns the exit code.
Each imports what it needs when it runs, so that --help is fast. argparse reads the command line: it accepts KEY=VALUE
words anywhere between options, and `completion` is made from its parsers.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import NoReturn

import drumbeat
from drumbeat.configs.errors import ConfigError, Fault, UserError, nearest
from drumbeat.configs.output_file import disk_fault
from drumbeat.configs.run.output import open_standard_files
from drumbeat.configs.terminal import text_only
from drumbeat.launch.commands import (
    bisect,
    cache,
    cancel,
    checkpoints,
    clean,
    compare,
    completion,
    demo_data,
    doctor,
    drill,
    evaluate,
    export,
    fork,
    logs,
    ls,
    nodes,
    predict,
    profile,
    replay,
    report,
    rerun,
    resume,
    run,
    show,
    status,
    stop,
    sweep,
    tensorboard,
    track,
    verify,
    why,
)

COMMANDS: dict[str, ModuleType] = {
    module.__name__.rpartition(".")[2].replace("_", "-"): module for module in (
        run, resume, rerun, fork, sweep,
        ls, status, why, logs, stop, cancel, profile, nodes,
        verify, replay, bisect,
        checkpoints, evaluate, predict, compare, export, report, tensorboard, track,
        clean, show, doctor, drill, cache, completion, demo_data)
}

ABOUT = "Train PyTorch models from one config, on any machine.\n\n" + "\n".join(
    ["commands:", *(f"  {name:<12}{command.HELP}" for name, command in COMMANDS.items()), "",
     "drumbeat COMMAND --help explains a command."])

REQUIRED = ("omegaconf", "rich", "shtab", "submitit", "yaml")
"""The packages that the launcher needs."""


def main(argv: Sequence[str] | None = None, program: str = "drumbeat run") -> int:
    """Runs one command and returns its exit code. A user's mistake is one screen on stderr, with exit code 2."""
    with as_command():
        return _run(list(sys.argv[1:] if argv is None else argv), program)


@contextmanager
def as_command() -> Iterator[None]:
    """What surrounds each command: open standard files, output that cannot control the terminal, and new files to which
    no other user may write: those of a run, such as its pickles, are executed."""
    open_standard_files()
    os.umask(os.umask(0o077) | 0o002)
    with text_only():
        yield


def _run(words: list[str], program: str) -> int:
    try:
        args = parse(words, program)
        code = int(args.command.run(args))
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
    except OSError as error:
        if (fault := disk_fault(error, Path(error.filename or Path.cwd()))) is None:
            raise
        print(fault, file=sys.stderr)
        return 2
    except ModuleNotFoundError as missing:
        if missing.name not in REQUIRED:
            raise
        print(Fault(what=f"{missing.name} is not installed", where=sys.executable,
                    remedy="Use .venv/bin/python, which `make demo` makes, or: pip install -e ."), file=sys.stderr)
        return 2


def parse(words: list[str], program: str = "drumbeat run") -> argparse.Namespace:
    """The parsed arguments. KEY=VALUE may also follow options, where argparse alone does not accept it."""
    top, commands = parsers(program)
    words = words or ["--help"]
    if words[0] not in commands and not words[0].startswith("-"):
        raise ConfigError(Fault(what=f"unknown command '{words[0]}'", where="command line",
                                remedy=nearest(words[0], commands)))
    args, rest = top.parse_known_args(words)
    dashed = [word for word in rest if word.startswith("-")]
    if unknown := dashed or ([] if "words" in args else rest):
        options = [name for action in commands[words[0]]._actions for name in action.option_strings]
        raise ConfigError(*(Fault(what=f"unexpected '{word}'", where="command line", remedy=_instead(word, options))
                            for word in unknown))
    if rest:
        args.words = [*args.words, *rest]
    args.typed = shlex.join(["drumbeat", *words])
    return args


class Parser(argparse.ArgumentParser):
    """argparse, with errors in the form of all others."""

    def error(self, message: str) -> NoReturn:
        text = re.sub(r"\(choose from .*\)", lambda found: found[0].replace("'", ""), message)  # 3.11 quotes
        raise ConfigError(Fault(what=text.removeprefix("argument "), where="command line",
                                remedy=f"See: {self.prog} --help"))


def parsers(program: str) -> tuple[Parser, dict[str, Parser]]:
    """The top parser, and the parser of each command."""
    top = Parser(prog="drumbeat", usage="drumbeat COMMAND ...", description=ABOUT, allow_abbrev=False,
                 formatter_class=argparse.RawDescriptionHelpFormatter)
    group = top.add_subparsers(prog="drumbeat", metavar="COMMAND", help=argparse.SUPPRESS, required=True)
    each: dict[str, Parser] = {}
    for name, command in COMMANDS.items():
        each[name] = group.add_parser(name, description=f"{command.HELP[:1].upper()}{command.HELP[1:]}.",
                                      help=command.HELP, allow_abbrev=False)
        each[name].set_defaults(command=command)
        command.add_arguments(each[name])
    for parser in (top, each["run"]):  # the latter for `python launch/run.py --version`
        parser.add_argument("--version", action="version", version=f"drumbeat {drumbeat.__version__}",
                            help="print the version")
    each["run"].prog = program
    each["completion"].set_defaults(parsers=(top, each))
    return top, each


def _instead(word: str, options: list[str]) -> str:
    """What to write instead of an unknown argument."""
    if not word.startswith("-"):
        return "See --help."
    name, equals, _ = word.lstrip("-").partition("=")
    remedy = nearest(name, [option.lstrip("-") for option in options])
    if remedy.startswith("Did"):
        return remedy.replace("'", "'--", 1)
    example = word.lstrip("-") if equals else "batch_size=64, phases.train.optimizer.lr=1e-3"
    return f"Values of the config are set with KEY=VALUE, without dashes: {example}"

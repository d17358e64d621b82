"""drumbeat drill CONFIG: fault injection, and the proof that nothing is lost."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_config, add_runs, integer

HELP = "inject faults of every type, and prove nothing is lost"

TYPES = ("rank", "loader", "torchrun", "forkserver", "writer", "launcher", "sigterm", "checkpoint", "disk")

EXIT_CODES = """\
exit codes:
  0  all faults were injected, and nothing was lost
  1  something was lost: weights, samples or steps differ
  2  the config or the command line is wrong, or a run did not finish
  3  nothing was lost, but some faults were not injected: these are not proven"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = """\
Inject faults of every type, and prove nothing is lost. Trains what a config
describes three times: without faults, with faults at random steps, and with a
change of the number of ranks. The results must be equal: bit for bit after the
faults, and with virtual_ranks after the change of ranks as well."""
    parser.formatter_class, parser.epilog = argparse.RawDescriptionHelpFormatter, EXIT_CODES
    add_config(parser, " [options]", changes="phases.NAME.epochs=0.1 makes it short")
    parser.add_argument("--gpus", type=integer, metavar="N", help="ranks, one GPU each (default: all GPUs)")
    parser.add_argument("--procs", type=integer, metavar="N", help="ranks on the CPU")
    parser.add_argument("--faults", type=count, default=len(TYPES), metavar="N",
                        help="number of faults (default: 9, one of each type)")
    parser.add_argument("--only", choices=TYPES, metavar="TYPE", help=f"one type of fault: {', '.join(TYPES)}")
    parser.add_argument("--seed", type=integer, metavar="S", help="repeat the faults of a seed (default: random)")
    parser.add_argument("--every", type=seconds, metavar="SECONDS", help="inject a fault about every SECONDS (default: "
                        "at random steps)")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    import random

    from drumbeat.configs.load import load_typed
    from drumbeat.launch.drill.drill import drill

    flags = [f"--{name}={value}" for name in ("gpus", "procs") if (value := getattr(args, name)) is not None]
    seed = random.randrange(10**6) if args.seed is None else args.seed
    return drill([*args.words, *flags], Path(args.runs), name=f"{load_typed(args.words).config.name}-drill",
                 count=args.faults, seed=seed, every=args.every, only=args.only or "")


def count(text: str) -> int:
    """Parses an integer of at least 1, for argparse."""
    if (number := integer(text)) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be at least 1")
    return number


def seconds(text: str) -> float:
    """Parses a number of seconds, for argparse."""
    try:
        if 0 < (number := float(text)) < float("inf"):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is not a number of seconds")

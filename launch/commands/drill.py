"""drumbeat drill CONFIG: fault injection, and the proof that nothing is lost."""

from __future__ import annotations

import argparse
from pathlib import Path

from drumbeat.launch.commands.arguments import add_config, add_runs, whole

HELP = "inject faults of every kind, and prove nothing is lost"

def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = ("Inject faults of every kind, and prove nothing is lost: train what a config describes "
                          "without a disturbance, then with faults at random steps, and with a change of ranks.")
    add_config(parser, " [options]", changes="phases.NAME.epochs=0.1 makes it short")
    parser.add_argument("--gpus", type=whole, metavar="N", help="ranks, a GPU each (default: all there are)")
    parser.add_argument("--procs", type=whole, metavar="N", help="ranks on the CPU")
    parser.add_argument("--kills", type=count, default=9, metavar="K", help="how many faults (default: 9, one of each "
                        "kind)")
    parser.add_argument("--seed", type=whole, metavar="S", help="for the same faults again (default: random)")
    parser.add_argument("--every", type=seconds, metavar="SECONDS", help="a fault in about so many seconds, until the "
                        "run is over (default: at random steps)")
    add_runs(parser)


def run(args: argparse.Namespace) -> int:
    import random

    from drumbeat.configs.load import load_typed
    from drumbeat.launch.drill.drill import drill

    flags = [f"--{name}={value}" for name in ("gpus", "procs") if (value := getattr(args, name)) is not None]
    seed = random.randrange(10**6) if args.seed is None else args.seed
    name = f"{load_typed(args.words).config.name}-drill"
    return drill([*args.words, *flags], Path(args.runs), name=name, kills=args.kills,
                 seed=seed, every=args.every)


def count(text: str) -> int:
    """A number from 1 on, for argparse."""
    if (number := whole(text)) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' must be at least 1")
    return number


def seconds(text: str) -> float:
    """A time, for argparse."""
    try:
        if 0 < (number := float(text)) < float("inf"):
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds")

"""drumbeat demo-data KIND DIR: small synthetic data to try things with."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write synthetic data to try things with"

KINDS = {
    "xray": "chest radiographs in Kaggle's folders",
    "cifar10": "ten figures in CIFAR-10's binary files",
    "fashion_mnist": "the same in Fashion-MNIST's files",
    "hymenoptera": "ants and bees, a folder each",
    "news": "stories in a CSV with four topics",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["kinds:", *(f"  {kind:<15}{what}" for kind, what in KINDS.items())])
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help="which, of those below")
    parser.add_argument("folder", metavar="DIR", type=Path, help="where to write them")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import start

    return start("drumbeat.data.demo.demo", args.kind, str(args.folder.absolute()), user_code=False)

"""drumbeat demo-data KIND DIR: writes small synthetic data sets."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a small synthetic data set"

KINDS = {
    "xray": "chest X-rays, in the folders of Kaggle's set",
    "cifar10": "ten classes, in CIFAR-10's binary files",
    "fashion_mnist": "ten classes, in Fashion-MNIST's files",
    "hymenoptera": "ants and bees, one folder each",
    "shapes": "images of shapes with a mask each, for segmentation",
    "news": "texts on four topics, in a CSV file",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "\n".join(["kinds:", *(f"  {kind:<15}{what}" for kind, what in KINDS.items())])
    parser.add_argument("kind", choices=list(KINDS), metavar="KIND", help="one of those below")
    parser.add_argument("folder", metavar="DIR", type=Path, help="the folder to write")


def run(args: argparse.Namespace) -> int:
    from drumbeat.launch.runs.programs import start

    return start("drumbeat.data.demo.demo", args.kind, str(args.folder.absolute()), user_code=False)

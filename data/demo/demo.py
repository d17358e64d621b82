"""Synthetic data to try the trainer on, of any kind: what `drumbeat demo-data KIND DIR` runs."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from pathlib import Path

from drumbeat.data.bar import Bar
from drumbeat.data.demo.sets import SETS, write_set
from drumbeat.data.demo.xray import write_radiographs

READ_BY = {
    "xray": ("resnet50_xray_demo", "datasets/xray_demo"),
    "cifar10": ("cnn_cifar10, cnn_cifar10_augmented", "datasets/cifar-10-batches-bin"),
    "fashion_mnist": ("mlp_fashion_mnist", "datasets/fashion_mnist"),
    "hymenoptera": ("resnet18_hymenoptera, resnet18_hymenoptera_frozen", "datasets/hymenoptera_data"),
    "news": ("lstm_news, multilayer_lstm_news, bilstm_news", "datasets/news"),
}
"""Of each kind, the shipped configs that it is for, and where they look for it unless data.root says otherwise."""


def main(argv: list[str]) -> int:
    """What `drumbeat demo-data KIND DIR` runs. The exit code is 2 for a folder in use."""
    kind, folder = argv
    things = "radiographs" if kind == "xray" else SETS[kind].things
    try:
        with Bar() as bar:
            write = write_radiographs if kind == "xray" else partial(write_set, kind=kind)
            made = write(Path(folder), progress=partial(bar, f"making {things}"))
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: the {things} cannot be written: {error.strerror}\n  where  {error.filename or folder}\n"
              "  fix    Name another folder.", file=sys.stderr)
        return 2
    said = "written to" if made.written else "are there already, in"
    print(f"{made.images:,} synthetic {things} {said} {made.folder}")
    configs, usual = READ_BY[kind]
    root = "" if Path(folder).absolute() == Path(usual).absolute() else f" data.root={shlex.quote(str(folder))}"
    print(f"read by    {configs}\ntrain      drumbeat run {configs.partition(',')[0]}{root}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

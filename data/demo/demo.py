"""Writes synthetic data of any kind: the program of `drumbeat demo-data KIND DIR`."""

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
    "shapes": ("lraspp_shapes", "datasets/shapes"),
    "news": ("lstm_news, multilayer_lstm_news, bilstm_news", "datasets/news"),
}
"""For each kind: the shipped configs that read it, and their default data.root."""


def main(argv: list[str]) -> int:
    """Runs `drumbeat demo-data KIND DIR`. The exit code is 2 if the folder has other content or cannot be written."""
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
        print(f"error: the {things} cannot be written: {error.strerror or error}\n  where  {error.filename or folder}\n"
              "  fix    Name a folder on another disk, or free some space.", file=sys.stderr)
        return 2
    state = "written to" if made.written else "already exist in"
    print(f"{made.images:,} synthetic {things} {state} {made.folder}")
    configs, default = READ_BY[kind]
    root = "" if Path(folder).absolute() == Path(default).absolute() else f" data.root={shlex.quote(str(folder))}"
    print(f"read by    {configs}\ntrain      drumbeat run {configs.partition(',')[0]}{root}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

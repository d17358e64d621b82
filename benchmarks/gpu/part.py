"""One part of the GPU benchmark in its own process, so that a part that fails or hangs does not affect the others.

    python -m benchmarks.gpu.part NAME full|smoke      prints each figure as a line of JSON when it is measured

A part is the module of that name with a function `figures`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import sys
import warnings

import torch

from benchmarks.gpu.figure import Figure
from benchmarks.gpu.scale import SCALES, Scale


def main(name: str, scale: Scale) -> None:
    output = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # other output must not mix with the figures
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")
    torch.set_num_threads(scale.threads)
    try:
        for figure in importlib.import_module(f"benchmarks.gpu.{name}").figures(scale):
            print(json.dumps(dataclasses.asdict(figure)), file=output)
    except Exception as error:
        message = f"{type(error).__name__}: {str(error).strip()[:300]}"
        print(json.dumps(dataclasses.asdict(Figure(part=name, name="the part failed", error=message))), file=output)
        raise


if __name__ == "__main__":
    main(sys.argv[1], SCALES[sys.argv[2]])

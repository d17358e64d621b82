"""Records the operations without a deterministic implementation that a rank runs.

Under `torch.use_deterministic_algorithms(True, warn_only=True)` torch issues a Python warning when such an
operation runs. Warnings of the threads of a backward pass are shown by the calling thread after the pass
(torch/csrc/autograd/utils/warnings.h). The texts were read in torch 2.14.1 (ATen/Context.cpp, native/transformers/cuda/
attention_backward.cu, _prims_common/__init__.py), which no longer has the one about CuBLAS that older versions have.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from drumbeat.configs.run.determinism import Operation, record
from drumbeat.configs.run.folder import RunDir

WARNING = ("(.+?) does not have a deterministic implementation|(.+?) defaults to a non-deterministic algorithm"
           "|.* because it uses (CuBLAS)")
"""torch's warnings about such operations. The group that matches is the name."""


@contextmanager
def recorded_operations(run: RunDir, *, attempt: int, rank: int) -> Iterator[None]:
    """Within the context, each operation that torch warns about is recorded in the run's folder and printed once,
    instead of the warning. Other warnings are shown as usual. If the disk fails, the operation is recorded when it runs
    again."""
    known: set[str] = set()

    def show(message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None,
             line: str | None = None) -> None:
        found = re.match(WARNING, str(message))
        if found is None:
            return usual(message, category, filename, lineno, file, line)
        name = found[found.lastindex or 0]
        operation = Operation(name=name, attempt=attempt, rank=rank, line=f"{filename}:{lineno}")
        if name not in known and record(run, operation):
            known.add(name)
            print(f"note: {name} ran without a deterministic implementation, at {filename}:{lineno}", flush=True)
        return None

    with warnings.catch_warnings():
        warnings.filterwarnings("always", message=WARNING)
        usual, warnings.showwarning = warnings.showwarning, show
        yield

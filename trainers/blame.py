"""Names the sample for which a model or a loss of the user's fails."""

from __future__ import annotations

from collections.abc import Callable

import torch

from drumbeat.data.loader import Batch

NOT_OF_SAMPLES = ("Connection", "gloo", "NCCL", "memory", "CUDA")
"""In errors that are about the machine or about other ranks."""

SHOWN = 6
"""How many samples of a batch are named if none fails alone."""

MOST = 256
"""How many samples are tried alone."""


def blame(error: Exception, batch: Batch, alone: Callable[[range], object], *, tries: bool) -> None:
    """Adds a note to an error of a step: the first sample for which `alone` fails as well, or else the batch's samples.
    `alone` is called with one row of the batch, and only if `tries`:
    after an error on a GPU, nothing can be tried, and a loss of the whole batch may fail for any single sample."""
    if any(word in str(error) for word in NOT_OF_SAMPLES):
        return
    indices = batch.indices.tolist()
    for row, index in enumerate(indices[:MOST] if tries else []):
        try:
            with torch.no_grad():
                alone(range(row, row + 1))
        except type(error):
            error.add_note(f"sample {index} of data.train")
            return
        except Exception:
            break
    error.add_note(f"samples {', '.join(map(str, indices[:SHOWN]))}{', ...' * (len(indices) > SHOWN)} of data.train")

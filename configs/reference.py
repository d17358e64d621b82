"""Checks the figures of a source, `reference` in a config, against the run that they are shown beside."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from drumbeat.configs.errors import Fault, nearest
from drumbeat.configs.schema import Config

TRAINING_LOSS = "train/loss"
"""The curve of the training loss; the others are validation/METRIC."""


def reference_faults(config: Config, metrics: Sequence[str]) -> Iterator[Fault]:
    """What is wrong with the figures: a phase or a curve that the run does not have, columns of different lengths, and
    figures that are NaN or Inf. `metrics` are the names of the task's metrics."""
    known = [TRAINING_LOSS, *(f"validation/{name}" for name in metrics)]
    for phase, curves in config.reference.curves.items():
        key = f"reference.curves.{phase}"
        if phase not in config.phases:
            yield Fault(what=f"the reference has figures for a phase that the run does not have: {phase}", where=key,
                        remedy=f"The phases are {', '.join(config.phases)}. Without the figures: 'reference={{}}'")
        for name, values in curves.items():
            if name not in known:
                yield Fault(what=f"the run has no curve {name}", where=key, given=f"{name}: {_text(values)}",
                            remedy=nearest(name, known))
            if not all(map(math.isfinite, values)):
                yield Fault(what="the figures of a reference must be finite", where=key,
                            given=f"{name}: {_text(values)}")
        if len({len(values) for values in curves.values()}) > 1:
            yield Fault(what=f"the reference has columns of different lengths in phase {phase}", where=key,
                        given=", ".join(f"{name} {len(values)}" for name, values in curves.items()),
                        remedy="Give one figure for each epoch of the source's table.")


def _text(values: Sequence[float]) -> str:
    shown = ", ".join(f"{value:g}" for value in values[:5])
    return f"[{shown}, ...]" if len(values) > 5 else f"[{shown}]"

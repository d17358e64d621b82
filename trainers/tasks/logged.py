"""Values and pictures that a task, a loss or a model logs while it trains.

    from drumbeat.trainers.tasks import log, log_image

They are kept in the steps of the training curves' points (`tracking.every_steps`) alone. In other steps, in the
discarded pass at the start of a phase, in evaluations and outside of a run both functions do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from drumbeat.trainers.tasks.losses import summed

Logs = dict[str, Tensor]
"""float64 [2] by name: the sum of values and their number, or a sum that is the value already, and 0."""


@dataclass
class Logged:
    """What this rank has logged in a step."""

    parts: dict[int, Logs] = field(default_factory=dict)
    """The values of each of this rank's parts of the batch."""
    images: dict[str, Tensor] = field(default_factory=dict)
    part: int = 0
    """The part that is computed now."""

    def add(self, name: str, total: Tensor, count: int) -> None:
        new = torch.stack([total.double(), torch.full_like(total, count, dtype=torch.float64)])
        values = self.parts.setdefault(self.part, {})
        values[name] = values[name] + new.to(values[name].device) if name in values else new


_open: Logged | None = None


@contextmanager
def logging(into: Logged | None) -> Iterator[None]:
    """Keeps what is logged within the context; None keeps nothing."""
    global _open  # `log` is called from code that knows nothing of a run, and in hooks on other threads
    before, _open = _open, into
    try:
        yield
    finally:
        _open = before


def begin_part(part: int) -> None:
    """What is logged from now on is of this part of the batch. What was logged for it before does not count."""
    if _open is not None:
        _open.part = part
        _open.parts.pop(part, None)


def log(name: str, value: Tensor | float | Callable[[], Tensor | float]) -> None:
    """Draws a curve `train/NAME`: the mean of the values of a step, over all its micro-batches and ranks. A tensor
    [n, ...], such as one value for each sample, counts as n values (or more), so that its mean is the same at any
    number of ranks; a number, and a tensor without dimensions, count as one, and an empty tensor as nothing. A function
    is called only when its value is needed."""
    if _open is not None:
        found = torch.as_tensor(value() if callable(value) else value).detach()
        if found.numel():
            _open.add(name, found.double().sum(), found.numel())


def log_image(name: str, image: Tensor | Callable[[], Tensor]) -> None:
    """Draws an image [C, H, W], or the first of [n, C, H, W], as `train/NAME`, uint8 or float of any range, at the
    first point in each epoch; of several under one name, that of rank 0's last micro-batch. A function is called only
    when its image is needed."""
    if _open is not None:
        _open.images[name] = (image() if callable(image) else image).detach()


def summed_and_logged(losses: Tensor | Mapping[str, Tensor], scale: Tensor | float) -> Tensor:
    """The losses; of several named terms, their sum. Each term is logged: its sum times `scale`, over all micro-batches
    and ranks, is its value. Raises as `losses.summed`."""
    if _open is not None and not isinstance(losses, Tensor):
        for name, term in losses.items():
            _open.add(name, term.detach().sum(dtype=torch.float64) * scale, 0)
    return summed(losses)


def means(parts: Sequence[Logs]) -> dict[str, float]:
    """The values that were logged for the parts of a batch, in order; they may have different names."""
    totals: Logs = {}
    for part in parts:
        for name, value in part.items():
            totals[name] = totals[name] + value if name in totals else value
    pairs = {name: total.tolist() for name, total in totals.items()}
    return {name: total / count if count else total for name, (total, count) in pairs.items()}

"""Copies batches from the host to the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from drumbeat.data.loader import Batch
from drumbeat.data.structure import mapped


def on_device(source: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Yields the batches with inputs and targets on the device. Positions, indices and `replaced` stay on the host.

    On a GPU, a second stream copies the next batch while the current one is used. On the CPU, batches are unchanged.
    The GPU path is only tested with fake streams.
    """
    if device.type != "cuda":
        yield from source
        return
    second = torch.cuda.Stream(device)
    copied: deque[tuple[Batch, Any]] = deque()
    for batch in source:
        # A copy may get the memory of a batch that was freed on the host while queued steps still read it.
        second.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(second):
            moved = batch._replace(inputs=to_device(batch.inputs, device), targets=to_device(batch.targets, device))
            copied.append((moved, second.record_event()))
        if len(copied) > 1:
            yield _arrived(*copied.popleft(), device)
    while copied:
        yield _arrived(*copied.popleft(), device)


def _arrived(batch: Batch, event: Any, device: torch.device) -> Batch:
    """The batch for the current stream: the stream waits for the copy, the host does not."""
    torch.cuda.current_stream(device).wait_event(event)
    return batch


def to_device(values: Any, device: torch.device) -> Any:
    """Moves the tensors of a structure to a device. Objects with a method `to` move themselves, and may keep a part on
    the host, like `drumbeat.data.text.Padded`."""
    if hasattr(values, "to"):
        return values.to(device, non_blocking=True)
    return mapped(lambda value: value.to(device, non_blocking=True) if hasattr(value, "to") else value, values, "to")

"""Writes the step log of an attempt (`configs/run/step_log.py`): all ranks take part, and rank 0 writes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from drumbeat.configs.run.step_log import SKIPPED, STEP, header
from drumbeat.trainers.gradient_digest import GOLDEN, fold
from drumbeat.trainers.world import World

AT_ONCE = 64
"""The largest number of steps whose digests are computed together."""
MOST_VALUES = 2**18
"""The largest number of values that wait for that, on the device."""


class StepRecorder:
    """Records the steps of this attempt. What a step adds stays on the device until `flush`."""

    def __init__(self, world: World, path: Path, step: int, *, own_losses: bool = True) -> None:
        """The first step to be recorded is the one after `step`. `own_losses` says whether a rank's part of the loss is
        that of its own samples; otherwise the digests of its gradients include that."""
        self.world = world
        self.own_losses = own_losses
        self.path = path
        self.first = step + 1
        self.rows: list[Tensor] = []
        """Of the steps without a digest yet, what `gradient_digest.digest_row` returns."""
        self.own: list[Tensor] = []
        """Of the same steps, the sums of this rank's own gradients; of all or of none."""
        self.digests: list[Tensor] = []
        """int64 [2, k], by group of steps: the digests of the gradients, and of this rank's own ones."""
        self.losses: list[Tensor] = []
        """This rank's parts of the losses of the steps since the last `flush`."""
        self.skipped: set[int] = set()
        """Which of these were skipped, from 0."""
        self.waiting = header(self.first, world.size)
        """Bytes that the disk has not taken yet."""
        self.size = 0
        """Bytes that it has."""

    def add(self, loss: Tensor, row: Tensor, own: Tensor | None) -> None:
        """Records a step: this rank's part of the loss, and the gradient."""
        if self.rows and (self.rows[0].shape != row.shape or self.rows[0].dtype != row.dtype
                          or len(self.rows) * row.numel() > MOST_VALUES or len(self.rows) == AT_ONCE
                          or (own is not None and self.own[0].shape != own.shape)):
            self._fold()
        self.rows.append(row)
        if own is not None:
            self.own.append(own)
        self.losses.append(loss)

    def skip(self) -> None:
        """The last step was skipped."""
        self.skipped.add(len(self.losses) - 1)

    def _fold(self) -> None:
        if self.rows:
            digests = fold(torch.stack(self.rows))
            own = fold(torch.stack(self.own)).to(digests.device) if self.own else torch.zeros_like(digests)
            self.digests.append(torch.stack([digests, own]))
            self.rows, self.own = [], []

    def flush(self) -> None:
        """Writes the steps since the last call. All ranks call it, and wait for their devices. A disk that does not
        take them gets them the next time: training does not depend on it."""
        self._fold()
        if self.losses:
            losses = torch.stack(self.losses).double().cpu()
            digests, own = torch.cat(self.digests, 1).cpu()
            parts = self.world.gather(torch.stack([losses.view(torch.int64), own]))
            if self.world.is_main:
                self.waiting += self._records(digests, torch.stack(parts))
            self.digests, self.losses, self.skipped = [], [], set()
        if self.world.is_main:
            with suppress(OSError):
                self._write()

    def _records(self, digests: Tensor, parts: Tensor) -> bytes:
        """The records of steps from their digests [k] and what each rank has sent, int64 [ranks, 2, k]."""
        loss = parts[:, 0].contiguous().view(torch.float64).sum(0).view(torch.int64) & ~SKIPPED
        loss[[*self.skipped]] |= SKIPPED
        records = torch.stack([loss, digests], 1).view(torch.uint8)
        if self.world.size > 1:
            each = parts[:, 0] * (GOLDEN if self.own_losses else 0) + parts[:, 1] * 3
            each = (each ^ (each >> 32)).to(torch.int32).T.contiguous()
            records = torch.cat([records, each.view(torch.uint8)], 1)
        assert records.shape[1] >= STEP.size
        return records.numpy().tobytes()

    def _write(self) -> None:
        """Appends what waits, behind whole records."""
        handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            written = 0
            while written < len(self.waiting):
                written += os.pwrite(handle, self.waiting[written:], self.size + written)
        finally:
            os.close(handle)
        self.size, self.waiting = self.size + len(self.waiting), b""

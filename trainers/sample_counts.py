"""Counts the samples that a rank has used since the last checkpoint: the next span of the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.run.checkpoint_records import Progress, Span
from drumbeat.data.ledger import BLOCK, digest
from drumbeat.data.loader import Batch, Samples
from drumbeat.trainers.facts import facts_of
from drumbeat.trainers.world import World

HALF = 2**32

REMEDY = ("The ranks' logs name them. Repair them and resume the run, or do without them, however many they are: "
          "drumbeat resume RUN data.max_skipped=1")


@dataclass
class SampleCounts:
    """What this rank has used since the last checkpoint."""

    attempt: int
    steps: int = 0
    samples: int = 0
    digest: int = 0
    replaced: int = 0
    """Samples that could not be read and were replaced by others."""
    recent: list[Batch] = field(default_factory=list)
    """Batches that are not in the three sums yet: those of many small batches are computed at once."""
    recent_samples: int = 0
    looked_at: int = 0
    """How many of the recent batches are in `replaced`."""

    def add(self, parts: Sequence[Batch]) -> None:
        """Counts this rank's parts of a step; their samples are in the sums after `count`."""
        self.steps += 1
        self.recent += parts
        self.recent_samples += sum(len(part.positions) for part in parts)
        if self.recent_samples >= BLOCK:
            self.count()

    def count_replaced(self) -> int:
        """The number of samples since the last checkpoint that were replaced."""
        if new := self.recent[self.looked_at:]:
            self.replaced += int(torch.cat([batch.replaced for batch in new]).sum())
            self.looked_at = len(self.recent)
        return self.replaced

    def count(self) -> SampleCounts:
        """Adds the recent batches to the sums."""
        if self.recent:
            self.count_replaced()
            positions, indices = (torch.cat([getattr(batch, name) for batch in self.recent]).numpy()
                                  for name in ("positions", "indices"))
            self.samples += len(positions)
            self.digest = (self.digest + digest(positions, indices)) % 2**64
            self.recent, self.recent_samples, self.looked_at = [], 0, 0
        return self

    def close(self, progress: Progress, phase: int, world: World) -> Progress:
        """Returns the progress with a span for the steps since the last call, summed over the ranks. All ranks call
        it."""
        if not self.steps:
            return progress
        self.count()
        # Two halves, so that the sum of signed integers does not overflow.
        mine = torch.tensor([self.digest % HALF, self.digest // HALF, self.samples, self.replaced], dtype=torch.int64)
        low, high, samples, replaced = world.all_reduce(mine.to(world.device)).tolist()
        span = Span(phase=phase, first_step=progress.phase_step - self.steps, steps=self.steps, samples=samples,
                    digest=f"{(low + high * HALF) % 2**64:016x}", attempt=self.attempt, world_size=world.size)
        self.steps, self.samples, self.digest, self.replaced = 0, 0, 0, 0
        return replace(progress, skipped=progress.skipped + replaced, ledger=(*progress.ledger, span))


def check_skipped(progress: Progress, replaced: int, n: int, most: float) -> None:
    """Raises `PreflightError` if more than the fraction `most` of the samples so far could not be read; or of the set,
    as long as fewer were read than it has. One per epoch is always allowed, unless `most` is 0."""
    skipped = progress.skipped + replaced
    if skipped > allowed(most, max(progress.samples, n), epochs=-(-progress.samples // n)):
        raise PreflightError(Fault(what=f"{skipped:,} of {progress.samples:,} samples could not be read",
                                   where="data.max_skipped", given=f"max_skipped: {most}",
                                   remedy=REMEDY))


def allowed(most: float, n: int, epochs: int = 1) -> float:
    """How many of n samples may be unreadable: the fraction `most`, and at least one in each epoch unless it is 0."""
    return max(most * n, epochs, 1.0) if most else 0.0


def check_unreadable(name: str, unreadable: int, n: int, most: float) -> str:
    """A line about the samples of an evaluated set that could not be read; '' if there are none. Raises
    `PreflightError` if they are more than the fraction `most` of the set, and more than one."""
    what = f"{unreadable:,} of the {n:,} samples of the {name} set could not be read"
    if unreadable > allowed(most, n):
        raise PreflightError(Fault(what=what, where="data.max_skipped", given=f"max_skipped: {most}",
                                   remedy=REMEDY))
    return f"note: {what} and are left out" if unreadable else ""


def describe_training_set(samples: Samples) -> dict[str, Any]:
    """The training set as a checkpoint describes it: its size, the names of its classes or values, its fingerprint."""
    fingerprint = getattr(samples, "fingerprint", dict)
    named = {kind: list(getattr(samples, kind, [])) for kind in ("classes", "value_names")}
    known = named | {"facts": facts_of(samples)}
    return {"samples": len(samples), **{name: value for name, value in known.items() if value}, **fingerprint()}


def check_unchanged(before: dict[str, Any], now: dict[str, Any], *, allow_change: bool) -> str:
    """Compares the training set with that of the checkpoint. Returns a warning if only modification times differ, or if
    files differ and `allow_change` is set; otherwise ''.

    Raises `PreflightError` if it has changed, because positions in the stream would mean other samples.
    """
    if before.get("samples", now["samples"]) != now["samples"]:
        raise PreflightError(Fault(what="the training set has changed since the checkpoint", where="data.train",
                                   given=f"{before['samples']:,} samples at the checkpoint, {now['samples']:,} now",
                                   remedy="Restore the set, or start a new run."))
    for what in ("classes", "value_names", "facts"):
        if before.get(what, now.get(what)) != now.get(what):
            plain = what.replace("_", " ")
            raise PreflightError(Fault(what=f"the {plain} of the training set have changed since the checkpoint",
                                       where="data.train",
                                       given=f"{_short(before[what])} at the checkpoint, "
                                             f"{_short(now.get(what, []))} now",
                                       remedy="Restore the set, or start a new run."))
    if before.get("files") != now.get("files"):
        if allow_change:
            return "files of the training set have changed since the checkpoint, as data.allow_change allows"
        raise PreflightError(Fault(what="the training set has changed since the checkpoint", where="data.train",
                                   given="the same number of samples, but different files or file sizes",
                                   remedy="Restore the set and resume the run; or accept the change: drumbeat resume "
                                          "RUN data.allow_change=true"))
    if before.get("times") != now.get("times"):
        return "files of the training set have other times than at the checkpoint, but the same names and sizes"
    return ""


def _short(value: Any) -> str:
    """Names or facts, shortened for an error."""
    pairs = [f"{name} {number}" for name, number in value.items()] if isinstance(value, dict) else list(value)
    return ", ".join([*pairs[:8], *(["..."] if len(pairs) > 8 else [])]) or "none"

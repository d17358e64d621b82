"""A rank's account of the samples it has used: the open span of the ledger, and what was skipped in it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.run.checkpoint_records import Progress, Span
from drumbeat.data.ledger import digest
from drumbeat.data.loader import Batch, Samples
from drumbeat.trainers.facts import facts_of
from drumbeat.trainers.world import World

HALF = 2**32

REMEDY = "The ranks' logs name them. Mend them, or allow more."


@dataclass
class Account:
    """What arrived on this rank since the last checkpoint."""

    attempt: int
    steps: int = 0
    samples: int = 0
    digest: int = 0
    replaced: int = 0
    """Samples that could not be read."""

    def add(self, batch: Batch) -> None:
        """Counts this rank's shard of a step."""
        self.steps += 1
        self.samples += len(batch.positions)
        self.digest = (self.digest + digest(batch.positions.numpy(), batch.indices.numpy())) % 2**64
        self.replaced += int(batch.replaced.sum())

    def close(self, progress: Progress, phase: int, world: World) -> Progress:
        """The progress with a span for the steps since the last call, summed over ranks, each of which calls this."""
        if not self.steps:
            return progress
        # In halves, so that no sum of signed integers overflows.
        mine = torch.tensor([self.digest % HALF, self.digest // HALF, self.samples, self.replaced], dtype=torch.int64)
        low, high, samples, replaced = world.all_reduce(mine.to(world.device)).tolist()
        span = Span(phase=phase, first_step=progress.phase_step - self.steps, steps=self.steps, samples=samples,
                    digest=f"{(low + high * HALF) % 2**64:016x}", attempt=self.attempt, world_size=world.size)
        self.steps, self.samples, self.digest, self.replaced = 0, 0, 0, 0
        return replace(progress, skipped=progress.skipped + replaced, ledger=(*progress.ledger, span))


def check_skipped(progress: Progress, replaced: int, n: int, most: float) -> None:
    """Raises `PreflightError` where more than the fraction `most` of the samples read (or of the set, while
    fewer were read) could not be read."""
    skipped = progress.skipped + replaced
    if skipped > most * max(progress.samples, n):
        raise PreflightError(Fault(what=f"{skipped:,} of {progress.samples:,} samples could not be read",
                                   where="data.max_skipped", given=f"max_skipped: {most}",
                                   remedy=REMEDY))


def check_left_out(name: str, left_out: int, n: int, most: float) -> str:
    """A line about samples of an evaluated set that could not be read; '' where all could. Raises
    `PreflightError` where they are more than the fraction `most` of the set."""
    what = f"{left_out:,} of the {n:,} samples of the {name} set could not be read"
    if left_out > most * n:
        raise PreflightError(Fault(what=what, where="data.max_skipped", given=f"max_skipped: {most}", remedy=REMEDY))
    return f"note: {what}: left out" if left_out else ""


def describe(samples: Samples) -> dict[str, Any]:
    """The set as a checkpoint remembers it: its size, the names of what its targets hold, its fingerprint."""
    fingerprint = getattr(samples, "fingerprint", dict)
    named = {kind: list(getattr(samples, kind, [])) for kind in ("classes", "value_names")}
    known = named | {"facts": facts_of(samples)}
    return {"samples": len(samples), **{name: value for name, value in known.items() if value}, **fingerprint()}


def check_unchanged(before: dict[str, Any], now: dict[str, Any], *, allow_change: bool) -> str:
    """Whether the training set is the one that a checkpoint was made with; a warning, where only times differ, or where
    files do and `allow_change`.

    Raises `PreflightError`: positions of the stream would mean other samples.
    """
    if before.get("samples", now["samples"]) != now["samples"]:
        raise PreflightError(Fault(what="the training set has changed since the checkpoint", where="data.train",
                                   given=f"{before['samples']:,} samples then, {now['samples']:,} now",
                                   remedy="Put the set back as it was, or start a new run."))
    for what in ("classes", "value_names", "facts"):
        if before.get(what, now.get(what)) != now.get(what):
            plain = what.replace("_", " ")
            raise PreflightError(Fault(what=f"the {plain} of the training set have changed since the checkpoint",
                                       where="data.train",
                                       given=f"{_short(before[what])} then, {_short(now.get(what, []))} now",
                                       remedy="Put the set back as it was, or start a new run."))
    if before.get("files") != now.get("files"):
        if allow_change:
            return "files of the training set have changed since the checkpoint, as data.allow_change allows"
        raise PreflightError(Fault(what="the training set has changed since the checkpoint", where="data.train",
                                   given="as many samples, but other files or sizes",
                                   remedy="Put the set back as it was; or, if it may be so: --resume RUN "
                                          "data.allow_change=true"))
    return "files of the training set were written anew since the checkpoint, with the same names and sizes" if (
        before.get("times") != now.get("times")) else ""


def _short(value: Any) -> str:
    """Names or facts for an error."""
    pairs = [f"{name} {number}" for name, number in value.items()] if isinstance(value, dict) else list(value)
    return ", ".join([*pairs[:8], *(["..."] if len(pairs) > 8 else [])]) or "none"

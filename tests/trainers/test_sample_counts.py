"""A rank's sample counts: spans without gaps, skipped samples, and whether the training set is the same."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.data.ledger import blocks, digest, expected
from drumbeat.data.loader import Batch
from drumbeat.data.memory import Arrays
from drumbeat.data.order import Stream
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.sample_counts import (
    HALF,
    SampleCounts,
    check_skipped,
    check_unchanged,
    check_unreadable,
    describe_training_set,
)
from drumbeat.trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
TABLE = Schedule(23, 6, 2)
STREAM = Stream(23, 7, 0)


def batch(step: int, replaced: int = 0) -> Batch:
    """What arrives in a step, its first samples not readable."""
    positions = torch.tensor(TABLE.positions(step))
    indices = torch.from_numpy(STREAM.indices(positions.numpy()))
    return Batch(None, None, positions, indices, torch.arange(6) < replaced)


def take(counts: SampleCounts, progress: Progress, steps: int, replaced: int = 0) -> Progress:
    for _ in range(steps):
        counts.add([batch(progress.phase_step, replaced)])
        progress = progress.advanced(6)
    return progress


class Sums(World):
    """A rank whose sums find another rank's already there."""

    def all_reduce(self, values: torch.Tensor) -> torch.Tensor:
        return values + torch.tensor([HALF - 1, HALF - 1, 5, 2])


# Spans.


def test_spans_follow_one_another_and_hold_the_closed_form() -> None:
    counts, progress = SampleCounts(3), Progress()
    for steps in (2, 1, 4):
        progress = counts.close(take(counts, progress, steps), 1, ALONE)
    assert [(span.first_step, span.steps) for span in progress.ledger] == [(0, 2), (2, 1), (3, 4)]
    for span in progress.ledger:
        assert (span.phase, span.attempt, span.world_size) == (1, 3, 1)
        reads = blocks(span.first_step * 6, (span.first_step + span.steps) * 6)
        assert (span.samples, int(span.digest, 16)) == expected(reads, STREAM.indices)


def test_a_phase_counts_its_own_steps() -> None:
    counts, progress = SampleCounts(0), Progress()
    progress = counts.close(take(counts, progress, 5), 0, ALONE)
    progress = replace(progress, phase=1, phase_step=0)
    progress = counts.close(take(counts, progress, 2), 1, ALONE)
    assert [(span.phase, span.first_step, span.steps) for span in progress.ledger] == [(0, 0, 5), (1, 0, 2)]
    assert progress.step == 7


def test_without_a_step_there_is_no_span() -> None:
    progress = Progress(step=4, phase_step=4)
    assert SampleCounts(0).close(progress, 0, ALONE) is progress
    counts = SampleCounts(0)
    closed = counts.close(take(counts, progress, 1), 0, ALONE)
    assert counts.close(closed, 0, ALONE) is closed


def test_a_progress_that_was_closed_stays_as_it_was() -> None:
    """A checkpoint may still be written from it."""
    counts = SampleCounts(0)
    first = counts.close(take(counts, Progress(), 1), 0, ALONE)
    counts.close(take(counts, first, 1), 0, ALONE)
    assert len(first.ledger) == 1


def test_sums_over_ranks_wrap_around() -> None:
    """The other rank's digest is 2**64 - 1, which no signed integer holds."""
    counts = SampleCounts(0)
    progress = take(counts, Progress(), 2, replaced=1)
    arrived = digest(np.arange(12), STREAM.indices(np.arange(12)))
    assert counts.count().digest == arrived
    two = Sums(rank=0, local_rank=0, size=2, device=torch.device("cpu"))
    progress = counts.close(progress, 0, two)
    (span,) = progress.ledger
    assert span.digest == f"{(arrived - 1) % 2**64:016x}"
    assert (span.samples, span.world_size, progress.skipped) == (17, 2, 4)


# Skipping.


def test_skipped_samples_add_up() -> None:
    counts, progress = SampleCounts(0), Progress()
    progress = counts.close(take(counts, progress, 2, replaced=2), 0, ALONE)
    assert progress.skipped == 4
    assert counts.count().replaced == 0
    assert counts.close(take(counts, progress, 1, replaced=1), 0, ALONE).skipped == 5


@pytest.mark.parametrize(("samples", "before", "now", "fine"), [
    (50, 1, 0, True), (50, 1, 1, False), (50, 0, 2, False),  # a hundredth of the set, until that many were read
    (300, 3, 0, True), (300, 1, 2, True), (300, 1, 3, False),  # then of what was read
    (0, 0, 0, True),
])
def test_how_many_may_be_skipped(samples: int, before: int, now: int, fine: bool) -> None:
    progress = Progress(samples=samples, skipped=before)
    if fine:
        check_skipped(progress, now, 100, 0.01)
        return
    with pytest.raises(PreflightError) as caught:
        check_skipped(progress, now, 100, 0.01)
    assert str(caught.value) == (
        f"error: {before + now} of {samples} samples could not be read\n"
        "  where  data.max_skipped\n"
        "  given  max_skipped: 0.01\n"
        "  fix    The ranks' logs name them. Repair them and resume the run, or do\n"
        "         without them, however many they are: drumbeat resume RUN\n"
        "         data.max_skipped=1")


def test_none_and_all_may_be_skipped() -> None:
    check_skipped(Progress(samples=10, skipped=10), 0, 10, 1.0)
    with pytest.raises(PreflightError, match="1 of 10 samples could not be read"):
        check_skipped(Progress(samples=10, skipped=0), 1, 10, 0.0)


@pytest.mark.parametrize(("samples", "skipped", "fine"), [
    (8, 1, True), (8, 2, False), (41, 2, True), (80, 2, True), (80, 3, False)])
def test_one_sample_of_a_small_set_may_be_skipped_in_each_epoch(samples: int, skipped: int, fine: bool) -> None:
    """A hundredth of 40 samples is less than one."""
    with nullcontext() if fine else pytest.raises(PreflightError, match=f"{skipped} of {samples} samples"):
        check_skipped(Progress(samples=samples, skipped=skipped), 0, 40, 0.01)


def test_one_sample_of_a_small_evaluated_set_may_be_unreadable() -> None:
    assert check_unreadable("test", 1, 40, 0.01).startswith("note: 1 of the 40 samples")
    with pytest.raises(PreflightError):
        check_unreadable("test", 2, 40, 0.01)
    with pytest.raises(PreflightError):
        check_unreadable("test", 1, 40, 0.0)


def test_unreadable_samples_of_an_evaluated_set() -> None:
    assert check_unreadable("validation", 0, 200, 0.0) == ""
    assert check_unreadable("test", 2, 200, 0.01) == (
        "note: 2 of the 200 samples of the test set could not be read and are left out")
    with pytest.raises(PreflightError, match="3 of the 200 samples of the test set could not be read"):
        check_unreadable("test", 3, 200, 0.01)


# The training set.

THEN = {"samples": 1200, "files": "a", "times": "x"}


@pytest.mark.parametrize(("now", "allow_change", "warning"), [
    (THEN, False, ""),
    (THEN | {"times": "y"}, False, "files of the training set have other times than at the checkpoint, but the same "
                                   "names and sizes"),
    (THEN | {"times": "y", "files": "b"}, True, "files of the training set have changed since the checkpoint, as "
                                                "data.allow_change allows"),
    (THEN | {"files": "b"}, True, "files of the training set have changed since the checkpoint, as data.allow_change "
                                  "allows"),
])
def test_a_training_set_that_may_have_changed(now: dict[str, Any], allow_change: bool, warning: str) -> None:
    assert check_unchanged(THEN, now, allow_change=allow_change) == warning


def test_a_training_set_with_different_files() -> None:
    with pytest.raises(PreflightError) as caught:
        check_unchanged(THEN, THEN | {"files": "b"}, allow_change=False)
    assert str(caught.value) == (
        "error: the training set has changed since the checkpoint\n"
        "  where  data.train\n"
        "  given  the same number of samples, but different files or file sizes\n"
        "  fix    Restore the set and resume the run; or accept the change: drumbeat\n"
        "         resume RUN data.allow_change=true")


@pytest.mark.parametrize("allow_change", [False, True])
def test_a_training_set_of_a_different_size(allow_change: bool) -> None:
    """It is never allowed, because every position of the stream would mean another sample."""
    with pytest.raises(PreflightError) as caught:
        check_unchanged(THEN, THEN | {"samples": 1199}, allow_change=allow_change)
    assert str(caught.value) == (
        "error: the training set has changed since the checkpoint\n"
        "  where  data.train\n"
        "  given  1,200 samples at the checkpoint, 1,199 now\n"
        "  fix    Restore the set, or start a new run.")


def test_datasets_without_a_fingerprint_are_compared_by_size() -> None:
    arrays = Arrays(torch.zeros(5, 1), torch.zeros(5))
    assert describe_training_set(arrays) == {"samples": 5}
    assert check_unchanged({"samples": 5}, describe_training_set(arrays), allow_change=False) == ""


def test_many_small_batches_are_counted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When they have as many samples as a block, and not before."""
    monkeypatch.setattr("drumbeat.trainers.sample_counts.BLOCK", 12)
    counts = SampleCounts(0)
    progress = take(counts, Progress(), 1)
    assert (counts.samples, len(counts.recent)) == (0, 1)
    take(counts, progress, 1)
    assert (counts.samples, len(counts.recent)) == (12, 0)


def test_replaced_samples_are_counted_without_the_digest_and_each_once() -> None:
    counts = SampleCounts(0)
    progress = take(counts, Progress(), 2, replaced=2)
    assert (counts.count_replaced(), counts.count_replaced(), counts.samples) == (4, 4, 0)
    progress = take(counts, progress, 1, replaced=1)
    assert (counts.count_replaced(), counts.count().replaced, counts.count_replaced()) == (5, 5, 5)
    assert counts.close(progress, 0, ALONE).skipped == 5
    assert counts.count_replaced() == 0

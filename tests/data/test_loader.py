"""From positions to batches: the same tensors in every process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from drumbeat.data.loader import MOST_IN_A_ROW, Batch, BatchFetcher, ShardedBatchSampler, batches, chunks
from drumbeat.data.memory import Arrays
from drumbeat.data.mixing import Mixup
from drumbeat.data.order import Schedule, Stream

ROOT = Path(__file__).parents[2]


class Noisy:
    """Samples that use all three random generators."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([index, torch.rand(()).item(), random.random(), np.random.rand()]), index


def jitter(value: Tensor) -> Tensor:
    return value + torch.rand(4) * 0.25


def fetch(phase: int = 0) -> BatchFetcher:
    return BatchFetcher(Noisy(), indices=Stream(23, 7, phase).indices, transforms=[jitter], seed=7, phase=phase)


def epoch(world_size: int, workers: int, first: int = 0) -> list[list[Batch]]:
    """The batches of each step, by rank."""
    table = Schedule(23, 6, 2)
    ranks = [batches(fetch(), ShardedBatchSampler(table, rank=rank, world_size=world_size, first=first),
                     workers=workers, pin_memory=False) for rank in range(world_size)]
    return [list(step) for step in zip(*ranks, strict=True)]


def joined(steps: list[list[Batch]]) -> list[Tensor]:
    return [torch.cat([batch.inputs for batch in step]) for step in steps]


@pytest.mark.parametrize(("world_size", "workers"), [(2, 0), (3, 1), (6, 0), (1, 2)])
def test_augmented_tensors_are_the_same_at_any_world_size(world_size: int, workers: int) -> None:
    for ours, alone in zip(joined(epoch(world_size, workers)), joined(epoch(1, 0)), strict=True):
        assert torch.equal(ours, alone)


def test_resuming_starts_at_a_step_directly() -> None:
    whole = joined(epoch(2, 0))
    for ours, expected in zip(joined(epoch(3, 0, first=4)), whole[4:], strict=True):
        assert torch.equal(ours, expected)


def test_a_batch_says_which_samples_it_holds() -> None:
    for number, step in enumerate(epoch(4, 0)):
        positions = torch.cat([batch.positions for batch in step])
        indices = torch.cat([batch.indices for batch in step])
        assert positions.tolist() == list(range(6 * number, 6 * number + 6))
        assert indices.tolist() == Stream(23, 7, 0).indices(positions.numpy()).tolist()
        assert torch.cat([batch.targets for batch in step]).tolist() == indices.tolist()


def test_another_phase_augments_differently() -> None:
    values = [BatchFetcher(Noisy(), indices=lambda p: p, seed=7, phase=phase).__getitems__([3]).inputs
              for phase in (0, 1)]
    assert not torch.equal(*values)


@pytest.mark.parametrize(("n", "size", "world_size"), [(10, 3, 2), (5, 4, 7), (12, 4, 3), (1, 8, 2)])
def test_chunks_cover_a_set_once(n: int, size: int, world_size: int) -> None:
    shared = [chunks(n, size, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert sorted(index for rank in shared for chunk in rank for index in chunk) == list(range(n))
    assert sorted(chunk.start for rank in shared for chunk in rank) == list(range(0, n, size))


def test_fetched_batches_equal_collated_samples() -> None:
    arrays = Arrays(torch.randn(9, 2), torch.arange(9))
    whole = BatchFetcher(arrays, indices=Stream(9, 0, 0).indices).__getitems__(range(4))

    class OneByOne:
        def __len__(self) -> int:
            return len(arrays)

        def __getitem__(self, index: int) -> Any:
            return arrays[index]

    single = BatchFetcher(OneByOne(), indices=Stream(9, 0, 0).indices).__getitems__(range(4))
    assert torch.equal(whole.inputs, single.inputs)
    assert torch.equal(whole.targets, single.targets)


BROKEN: dict[int, Exception] = {4: ValueError("cannot read the image 4.png"), 5: UnidentifiedImageError("5.png?"),
                                12: SyntaxError("broken PNG file"), 22: Image.DecompressionBombError()}
"""What readers of images raise; after sample 22 comes sample 0."""


class Flawed(Noisy):
    """Some of the samples cannot be read."""

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index in BROKEN:
            raise BROKEN[index]
        return super().__getitem__(index)


def skipping(world_size: int, workers: int = 0) -> list[list[Batch]]:
    table, stream = Schedule(23, 6, 2), Stream(23, 7, 0)
    fetch = BatchFetcher(Flawed(), indices=stream.indices, transforms=[jitter], seed=7, skip_unreadable=True)
    ranks = [batches(fetch, ShardedBatchSampler(table, rank=rank, world_size=world_size), workers=workers,
                     pin_memory=False) for rank in range(world_size)]
    return [list(step) for step in zip(*ranks, strict=True)]


def test_the_next_readable_sample_replaces_an_unreadable_one() -> None:
    """It gets the position's augmentation, and the batch still holds the index of the original sample."""
    stand_ins = {4: 6, 5: 6, 12: 13, 22: 0}
    for step in skipping(1):
        batch = step[0]
        assert batch.targets.tolist() == [stand_ins.get(index, index) for index in batch.indices.tolist()]
        assert batch.replaced.tolist() == [index in BROKEN for index in batch.indices.tolist()]
        for position, target, inputs in zip(batch.positions, batch.targets, batch.inputs, strict=True):
            alone = BatchFetcher(Noisy(), indices=lambda positions, target=target: np.full_like(positions, int(target)),
                          transforms=[jitter], seed=7)
            assert torch.equal(alone.__getitems__([int(position)]).inputs[0], inputs)


@pytest.mark.parametrize(("world_size", "workers"), [(2, 0), (3, 0), (2, 1)])
def test_replacements_are_the_same_at_any_world_size(world_size: int, workers: int) -> None:
    for ours, alone in zip(skipping(world_size, workers), skipping(1), strict=True):
        for column in ("inputs", "targets", "positions", "indices", "replaced"):
            parts = [getattr(batch, column) for batch in ours]
            assert torch.equal(torch.cat(parts), getattr(alone[0], column))


def test_a_skipped_sample_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    fetch = BatchFetcher(Flawed(), indices=lambda positions: positions, skip_unreadable=True)
    fetch.__getitems__([3, 4, 22])
    assert capfd.readouterr().err == ("skipped sample 4: cannot read the image 4.png\n"
                                      "skipped sample 22: DecompressionBombError\n")


def test_without_skipping_the_first_unreadable_sample_raises() -> None:
    fetch = BatchFetcher(Flawed(), indices=lambda positions: positions)
    with pytest.raises(ValueError, match=r"cannot read the image 4\.png"):
        fetch.__getitems__([3, 4])


def test_other_errors_are_not_skipped() -> None:
    """A bug in a dataset must not look like corrupted files."""

    class Wrong(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            raise AttributeError("no such thing")

    with pytest.raises(AttributeError, match="no such thing"):
        BatchFetcher(Wrong(), indices=lambda positions: positions, skip_unreadable=True).__getitems__([0])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataset_that_raises_stopiteration_does_not_end_the_data(workers: int) -> None:
    """torch's loader would take it for the end of an epoch, and the run would be finished."""

    class Exhausted(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return next(iter(()))  # type: ignore[no-any-return]

    fetch = BatchFetcher(Exhausted(), indices=lambda positions: positions)
    with pytest.raises(RuntimeError, match="the dataset has raised StopIteration"):
        list(batches(fetch, [range(2)], workers=workers, pin_memory=False))


@pytest.mark.parametrize(("n", "tried"), [(7, 7), (1000, MOST_IN_A_ROW)])
def test_a_set_without_readable_samples_raises(n: int, tried: int) -> None:
    read = []

    class Lost:
        def __len__(self) -> int:
            return n

        def __getitem__(self, index: int) -> Any:
            read.append(index)
            raise OSError("the disk is gone")

    with pytest.raises(ValueError, match=f"none of the {tried} samples from number 3 on can be read"):
        BatchFetcher(Lost(), indices=lambda positions: positions, skip_unreadable=True).__getitems__([3])
    assert read == [(3 + ahead) % n for ahead in range(tried)]


def test_an_unreadable_partner_of_a_mixed_sample_is_not_counted() -> None:
    """It is counted in its own row, which may be another rank's."""
    pictures = torch.arange(8 * 4, dtype=torch.uint8).reshape(8, 1, 2, 2)

    class Pictures:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            if index == 3:
                raise OSError("gone")
            return pictures[index], index

    fetch = BatchFetcher(Pictures(), indices=lambda positions: positions, seed=0, mixing=Mixup(), skip_unreadable=True)
    batch = fetch.__getitems__([1, 2, 4])  # partners: 0, 3, 5
    assert batch.replaced.tolist() == [False] * 3
    assert batch.targets["own"].tolist() == [1, 2, 4]
    assert batch.targets["partner"].tolist() == [0, 4, 5]
    assert fetch.__getitems__([3]).replaced.tolist() == [True]


ORPHANED = """
import os, sys
from drumbeat.data.loader import batches
from tests.data.test_loader import ShardedBatchSampler, Schedule, fetch

if __name__ == "__main__":
    shares = ShardedBatchSampler(Schedule(23, 6, 2), rank=0, world_size=1, first=0)
    source = iter(batches(fetch(), shares, workers=1, pin_memory=False))
    next(source)
    print(source._workers[0].pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_loader_process_ends_with_its_rank() -> None:
    """At once, and not at its next check for its parent: until then it would hold the rank's connections open."""
    with subprocess.Popen([sys.executable, "-c", ORPHANED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as rank:
        assert rank.stdout is not None
        worker = int(rank.stdout.readline())
        os.kill(rank.pid, signal.SIGKILL)
        rank.wait()
        killed_at = time.monotonic()
        while Path(f"/proc/{worker}").exists() and "State:\tZ" not in Path(f"/proc/{worker}/status").read_text():
            assert time.monotonic() < killed_at + 2.5, "it is still there"
            time.sleep(0.01)

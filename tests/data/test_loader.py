"""From positions to batches: the same tensors in every process."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from drumbeat.data.loader import (
    BUGS,
    MOST_IN_A_ROW,
    Batch,
    BatchFetcher,
    ShardedBatchSampler,
    batches,
    chunks,
    error_message,
)
from drumbeat.data.memory import Arrays
from drumbeat.data.mixing import Mixup
from drumbeat.data.order import Stream
from drumbeat.data.schedule import Schedule
from drumbeat.data.user_code import CollateError, SampleError

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
    place = r"\(tests/data/test_loader\.py:\d+, in __getitem__\)"
    assert re.fullmatch(rf"skipped sample 4: ValueError: cannot read the image 4\.png {place}\n"
                        rf"skipped sample 22: DecompressionBombError {place}\n", capfd.readouterr().err)


def test_without_skipping_the_first_unreadable_sample_raises() -> None:
    fetch = BatchFetcher(Flawed(), indices=lambda positions: positions)
    with pytest.raises(ValueError, match=r"cannot read the image 4\.png"):
        fetch.__getitems__([3, 4])


@pytest.mark.parametrize("kind", [RuntimeError, cv2.error, KeyError, zipfile.BadZipFile, EOFError, TypeError,
                                  AttributeError, MemoryError])
def test_what_other_libraries_raise_is_skipped_too(kind: type[Exception]) -> None:
    """torchvision.io, OpenCV, h5py and zipfile; and an attribute of the None that cv2.imread returns."""

    class Broken(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            if index == 3:
                raise kind("damaged")
            return super().__getitem__(index)

    batch = BatchFetcher(Broken(), indices=lambda positions: positions, skip_unreadable=True).__getitems__([2, 3])
    assert batch.targets.tolist() == [2, 4] and batch.replaced.tolist() == [False, True]


@pytest.mark.parametrize("kind", BUGS)
def test_a_bug_is_not_skipped(kind: type[Exception]) -> None:
    """It must not look like corrupted files."""

    class Wrong(Noisy):
        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            raise kind("no such thing")

    with pytest.raises(SampleError, match="no such thing"):
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


class Study(Noisy):
    """Samples of two inputs of different lengths and a target, as a dict."""

    def __getitem__(self, index: int) -> Any:
        return {"ids": torch.arange(index + 1), "age": float(index), "label": index}

    def names(self) -> list[str]:
        return [f"{index:04}.txt" for index in range(23)]


def padded(samples: list[Any]) -> Any:
    ids = torch.nn.utils.rnn.pad_sequence([sample["ids"] for sample in samples], batch_first=True)
    ages, labels = (torch.tensor([sample[name] for sample in samples]) for name in ("age", "label"))
    return {"ids": ids, "age": ages, "labels": labels}


@pytest.mark.parametrize("workers", [0, 1])
def test_an_own_function_makes_the_batch(workers: int) -> None:
    fetch = BatchFetcher(Study(), indices=lambda positions: positions, collate=padded)
    batch, = batches(fetch, [range(2, 5)], workers=workers, pin_memory=False)
    assert batch.inputs["ids"].tolist() == [[0, 1, 2, 0, 0], [0, 1, 2, 3, 0], [0, 1, 2, 3, 4]]
    assert batch.inputs["age"].tolist() == [2, 3, 4]
    assert batch.targets.tolist() == batch.indices.tolist() == [2, 3, 4]
    assert not batch.targets.is_shared()  # it came through the pipe


def test_a_transform_gets_the_input_and_the_structure_stays() -> None:
    class Photo(Noisy):
        def __getitem__(self, index: int) -> Any:
            return {"label": index, "image": torch.tensor(float(index))}

    seen = []
    BatchFetcher(Photo(), indices=lambda positions: positions, transforms=[lambda image: image * 2],
                 collate=lambda samples: seen.append(samples) or samples[0])[3]
    assert seen == [[{"label": 3, "image": torch.tensor(6.0)}]]
    fetch = BatchFetcher(Photo(), indices=lambda positions: positions, transforms=[lambda image: image * 2])
    assert (fetch[3].inputs.tolist(), fetch[3].targets.tolist()) == ([6.0], [3])


def test_image_and_mask_are_transformed_together() -> None:
    """torchvision's v2 transforms draw one set of parameters for both."""
    class Masked(Noisy):
        def __getitem__(self, index: int) -> Any:
            values = torch.arange(64, dtype=torch.uint8).reshape(1, 8, 8)
            return tv_tensors.Image(values), tv_tensors.Mask(values[0])

    crop = [v2.RandomCrop(4), v2.RandomHorizontalFlip(0.5)]
    batch = BatchFetcher(Masked(), indices=lambda positions: positions, seed=3, transforms=crop).__getitems__(range(9))
    assert torch.equal(batch.inputs[:, 0], batch.targets)
    assert type(batch.inputs) is type(batch.targets) is Tensor
    assert len({tuple(rows.flatten().tolist()) for rows in batch.targets}) > 4


class Faulty(Study):
    def __getitem__(self, index: int) -> Any:
        return {"a": 1}["x"] if index == 7 else super().__getitem__(index)


def messages(fetch: BatchFetcher, positions: range) -> list[str]:
    """The error in this process, and in that of a loader worker."""
    found = []
    for workers in (0, 1):
        with pytest.raises(ValueError) as raised:
            list(batches(fetch, [positions], workers=workers, pin_memory=False))
        found.append(error_message(raised.value))
    return found


def test_an_error_names_the_sample_its_file_and_the_line() -> None:
    line = Faulty.__getitem__.__code__.co_firstlineno + 1
    fetch = BatchFetcher(Faulty(), indices=lambda positions: positions, collate=padded, name="data.train")
    assert messages(fetch, range(6, 9)) == [
        f"sample 7 of data.train (0007.txt): KeyError: 'x' (tests/data/test_loader.py:{line}, in __getitem__)"] * 2


def test_samples_that_do_not_fit_together_are_named() -> None:
    fetch = BatchFetcher(Study(), indices=lambda positions: positions, name="data.test")
    here, worker = messages(fetch, range(1, 9))
    assert here == worker
    assert here.startswith("the samples 1, 2, 3, 4, 5, 6, ... of data.test cannot be put into one batch: "
                           "RuntimeError: stack expects each tensor to be equal size")


@pytest.mark.parametrize(("odd", "expected"), [
    (None, "`__getitem__` returned None, and for most samples (float32 [2], int)"),
    ((torch.zeros(3), 0), "`__getitem__` returned (float32 [3], int), and for most samples (float32 [2], int)")])
def test_the_sample_that_differs_from_most_is_named(odd: Any, expected: str) -> None:
    samples = [odd if index == 2 else (torch.zeros(2), 0) for index in range(8)]
    fetch = BatchFetcher(samples, indices=lambda positions: positions, name="data.train")
    with pytest.raises(CollateError) as raised:
        fetch.__getitems__([4, 2, 5, 1])
    assert str(raised.value).startswith(f"sample 2 of data.train cannot be put into one batch: {expected}; ")


def test_samples_that_are_all_none() -> None:
    fetch = BatchFetcher([None] * 8, indices=lambda positions: positions, name="data.train")
    with pytest.raises(CollateError, match=r"^sample 4 of data\.train cannot be put into one batch: `__getitem__` "
                                           r"returned None; "):
        fetch.__getitems__([4, 2])


def test_only_tensors_are_mixed() -> None:
    fetch = BatchFetcher(Study(), indices=lambda positions: positions, collate=padded, seed=0, mixing=Mixup())
    with pytest.raises(TypeError, match=r"data\.mix needs one tensor as the input and one as the target; the batch is "
                                        r"\(\{'ids': int64 \[4, 4\], "):
        fetch.__getitems__(range(4))


def test_a_pinned_batch_keeps_its_structure() -> None:
    class Pinned:
        def pin_memory(self) -> str:
            return "pinned"

    whole = Batch((Pinned(), [Pinned(), "text"]), {"a": Pinned()}, *(torch.ones(2),) * 3)
    pinned = Batch.pin_memory(whole._replace(positions=Pinned(), indices=Pinned(), replaced=Pinned()))  # type: ignore[arg-type]
    assert pinned[:3] == (("pinned", ["pinned", "text"]), {"a": "pinned"}, "pinned")

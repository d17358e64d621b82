"""Weighted and class-balanced streams and length buckets, at any world size and from any step."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drumbeat.data.order import Integers, Stream, shard
from drumbeat.data.sampling import (
    ClassBalanced,
    LengthBuckets,
    SampleStream,
    Weighted,
    _read_weights,
    classes_of,
    labels_of,
)
from drumbeat.data.schedule import Schedule

SEED = 17
SIZES = [3, 47, 1200]
CLASSES = ["rare", "some", "many"]


class Labelled:
    """The part of a dataset that a stream uses."""

    def __init__(self, labels: Iterable[int], classes: list[str] | None = None) -> None:
        self.labels = np.array(list(labels), dtype=np.int64)
        if classes is not None:
            self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)


class Targets:
    """A set of torchvision's convention."""

    def __init__(self, targets: Any) -> None:
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)


def uneven() -> Labelled:
    """Three classes, their samples mixed."""
    return Labelled(np.random.default_rng(3).permutation(np.repeat([0, 1, 2], SIZES)), CLASSES)


def chi_square(counts: Integers, expected: Any) -> float:
    """How far counts are from what was expected, in standard deviations: a fair draw gives about -3 to 4."""
    seen = np.asarray(expected) > 0
    assert not counts[~seen].any()
    freedom = int(seen.sum()) - 1
    return float(((counts - expected)[seen] ** 2 / expected[seen]).sum() - freedom) / math.sqrt(2 * freedom)


def streams() -> list[SampleStream]:
    return [Weighted(uneven(), SEED, 1, class_weights={"rare": 5, "some": 1, "many": 0.1}),
            ClassBalanced(uneven(), SEED, 1)]


# The promise: a run is resumed with the order it was started with. If this fails, the format has changed.


def test_golden_streams() -> None:
    weighted, balanced = streams()
    assert weighted.indices(np.arange(8)).tolist() == [1219, 548, 3, 347, 435, 799, 717, 500]
    assert balanced.indices(np.arange(8)).tolist() == [906, 252, 736, 394, 257, 1099, 759, 9]
    windows = LengthBuckets(Schedule(20, 4, 1), Stream(20, SEED, 0), np.arange(20) % 7, batches=3, rank=0,
                            world_size=1)
    assert [batch.tolist() for batch in windows] == [
        [7, 10, 3, 8], [5, 9, 11, 1], [4, 6, 0, 2], [19, 13, 15, 12], [17, 18, 14, 16]]


# Labels.


@pytest.mark.parametrize("targets", [[2, 0, 1], torch.tensor([2, 0, 1]), (2, 0, 1), np.array([2, 0, 1], np.uint8)])
def test_targets_are_labels_too(targets: Any) -> None:
    labels = labels_of(Targets(targets))
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0, 1]
    assert classes_of(Targets(targets)) == ["0", "1", "2"]


def test_a_set_without_usable_labels_is_rejected() -> None:
    with pytest.raises(ValueError, match="range does not have the classes of its samples; give it an attribute"):
        labels_of(range(3))
    unlabelled = Labelled([])
    unlabelled.labels = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="Labelled does not have the classes"):
        labels_of(unlabelled)
    for targets in ([0.5, 1.0], [-1, 0], np.zeros((2, 3), np.int64)):
        with pytest.raises(ValueError, match=r"one class number, from 0 on, for each of the 2 samples"):
            labels_of(Targets(targets))
    with pytest.raises(ValueError, match="a sample has label 2, but only 2 classes have names: cat, dog"):
        classes_of(Labelled([0, 2], ["cat", "dog"]))


# Both streams.


@pytest.mark.parametrize("stream", streams(), ids=lambda stream: type(stream).__name__)
def test_streams_are_functions_of_the_position(stream: SampleStream) -> None:
    positions = np.arange(3000) + 10**12
    whole = stream.indices(positions)
    assert whole.dtype == np.int64
    for world_size in (1, 2, 3, 4, 6):
        parts = [shard(3000, rank, world_size) for rank in range(world_size)]
        assert np.array_equal(np.concatenate([stream.indices(positions[p.start:p.stop]) for p in parts]), whole)
        assert all(np.array_equal(stream.indices(positions[r::world_size]), whole[r::world_size]) for r in range(3))
    assert np.array_equal(stream.indices(positions.reshape(3, 10, 100)), whole.reshape(3, 10, 100))
    assert np.array_equal(pickle.loads(pickle.dumps(stream)).indices(positions), whole)
    assert stream.indices(positions[:0]).shape == (0,)
    assert int(stream.indices(np.array(10**12))) == whole[0]
    with pytest.raises(ValueError, match="are not all in 0 to"):
        stream.indices(np.array([5, -1]))


def test_seed_and_phase_change_the_draws() -> None:
    positions = np.arange(200)
    for kind in (Weighted, ClassBalanced):
        more: dict[str, Any] = {"class_weights": dict.fromkeys(CLASSES, 1)} if kind is Weighted else {}
        orders = [kind(uneven(), seed, phase, **more).indices(positions).tolist() for seed, phase in
                  ((SEED, 0), (SEED, 1), (SEED + 1, 0))]
        assert orders[0] != orders[1] != orders[2] != orders[0]


# Weighted.


def test_class_weights_set_the_probabilities_of_samples() -> None:
    samples, weights = uneven(), {"many": 1, "rare": 100.5, "some": 0}
    drawn = Weighted(samples, SEED, 0, class_weights=weights).indices(np.arange(400_000))
    each = np.array([weights[name] for name in CLASSES])[samples.labels]
    assert chi_square(np.bincount(drawn, minlength=len(samples)), each / each.sum() * len(drawn)) < 4


def test_neighbouring_draws_are_independent() -> None:
    """Pairs of samples at positions 2k and 2k + 1 are as frequent as the product of their probabilities."""
    chance = np.array([1, 2, 3, 4]) / 10
    drawn = Weighted(Labelled(range(4)), SEED, 0, class_weights=dict(zip("0123", [1, 2, 3, 4], strict=True)))
    first, second = drawn.indices(np.arange(200_000)).reshape(-1, 2).T
    assert chi_square(np.bincount(first * 4 + second, minlength=16), np.outer(chance, chance).ravel() * 100_000) < 4


@pytest.mark.parametrize("name", ["weights.npy", "weights.txt"])
def test_weights_from_a_file(name: str, tmp_path: Path) -> None:
    weights = [1.0, 0.0, 2.5, 4.0]
    if name.endswith("npy"):
        np.save(tmp_path / name, np.array(weights, np.float32))
    else:
        (tmp_path / name).write_text("1\n0\n2.5\n\n4e0\n")
    table = Weighted(range(4), SEED, 0, file=str(tmp_path / name)).table
    assert [chance * Fraction(15, 2) for chance in table.probabilities()] == weights


def test_invalid_weights_are_reported(tmp_path: Path) -> None:
    def refused(message: str, error: type[Exception] = ValueError, **options: Any) -> None:
        with pytest.raises(error, match=message):
            Weighted(Labelled([0, 1, 1], ["normal", "pneumonia"]), SEED, 0, **options)

    refused("'pnuemonia', which is not a class of the dataset. Did you mean 'pneumonia'. Its classes: normal, "
            "pneumonia",
            class_weights={"normal": 1, "pnuemonia": 1})
    refused("has no weight for pneumonia; give every class a weight", class_weights={"normal": 1})
    refused("the weight -1 of 'normal'", class_weights={"normal": -1, "pneumonia": 1})
    refused("the weight 'much' of 'normal' in class_weights is not a number",
            class_weights={"normal": "much", "pneumonia": 1})
    refused("all weights are 0", class_weights={"normal": 0, "pneumonia": 0})
    refused("either class_weights, .* or a file")
    refused("either class_weights, .* or a file", class_weights={"normal": 1}, file="weights.npy")
    refused("missing.npy", error=FileNotFoundError, file=str(tmp_path / "missing.npy"))
    path = tmp_path / "weights.txt"
    for text, message in {"1\n2\n": r"has weights of shape \[2\], but the dataset has 3 samples",
                          "1\n-2\n3": "weight -2", "1\nx\n3": "could not convert string to float: 'x'",
                          "0\n0\n0": "all weights are 0"}.items():
        path.write_text(text)
        refused(message, file=str(path))
    np.save(tmp_path / "table.npy", np.ones((3, 2)))
    refused(r"has weights of shape \[3, 2\]", file=str(tmp_path / "table.npy"))


# Class-balanced.


def test_classes_take_turns_and_have_their_own_epochs() -> None:
    samples = uneven()
    positions = np.arange(4500)
    indices = ClassBalanced(samples, SEED, 0).indices(positions)
    assert np.array_equal(samples.labels[indices], positions % 3)
    for label in range(3):
        members = np.flatnonzero(samples.labels == label)
        mine = indices[label::3]
        rounds = [mine[begin:begin + len(members)] for begin in range(0, len(mine), len(members))]
        whole = [part.tolist() for part in rounds if len(part) == len(members)]
        assert whole
        assert all(sorted(part) == members.tolist() for part in whole)
        assert len(members) < 10 or len(whole) == 1 or whole[0] != whole[1]


def test_a_class_without_samples_is_rejected_by_name() -> None:
    with pytest.raises(ValueError, match="some have no samples: lynx; use a dataset"):
        ClassBalanced(Labelled([0, 2, 2], ["cat", "lynx", "dog"]), SEED, 0)
    indices = ClassBalanced(Labelled([1, 7, 7]), SEED, 0).indices(np.arange(6))  # without names, the labels that occur
    assert np.array_equal(indices[::2], [0, 0, 0])
    assert set(indices[1::2].tolist()) == {1, 2}


# Length windows.


def window_case(batch_size: int = 12) -> tuple[Schedule, Stream, Integers]:
    table = Schedule(50, batch_size, 5.5)
    return table, Stream(table.n, SEED, 0), np.random.default_rng(0).integers(1, 500, table.n)


def read(batch_size: int, world_size: int, first: int = 0) -> list[list[Integers]]:
    """The positions of each step, by rank."""
    table, stream, lengths = window_case(batch_size)
    ranks = [LengthBuckets(table, stream, lengths, batches=4, rank=rank, world_size=world_size, first=first)
             for rank in range(world_size)]
    assert {len(windows) for windows in ranks} == {table.steps - first}
    return [list(step) for step in zip(*ranks, strict=True)]


@pytest.mark.parametrize("batch_size", [12, 17])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6, 12])
def test_windows_hold_each_position_once_at_any_world_size(world_size: int, batch_size: int) -> None:
    table, _, _ = window_case(batch_size)
    assert table.steps % 4, "the last window is to be a short one"
    alone = [batch for (batch,) in read(batch_size, 1)]
    assert sorted(np.concatenate(alone).tolist()) == list(range(table.steps * batch_size))
    for number, (parts, batch) in enumerate(zip(read(batch_size, world_size), alone, strict=True)):
        assert sorted(np.concatenate(parts).tolist()) == sorted(batch.tolist())
        assert [len(part) for part in parts] == [len(shard(batch_size, rank, world_size)) for rank in range(world_size)]
        begin = number - number % 4
        assert batch.min() >= table.positions(begin).start
        assert batch.max() < table.positions(min(begin + 4, table.steps) - 1).stop


def test_a_start_within_a_window_is_a_seek() -> None:
    whole = read(17, 3)
    for first in range(len(whole) + 1):
        rest = read(17, 3, first)
        assert all(np.array_equal(a, b) for ours, theirs in zip(rest, whole[first:], strict=True)
                   for a, b in zip(ours, theirs, strict=True))


def test_a_phase_that_ends_early_reads_what_the_whole_phase_reads_first() -> None:
    """So a budget or patience that end it within a window can be extended."""
    table, stream, lengths = window_case()
    short, whole = ([*LengthBuckets(one, stream, lengths, batches=4, rank=0, world_size=1)]
                    for one in (table.cut(15).cut(14), table))
    assert np.array_equal(short, whole[:14])


def test_batches_and_shards_are_of_similar_lengths() -> None:
    """Each batch is a run of its window's sorted lengths, and of three ranks each gets every third of it."""
    table, stream, lengths = window_case()
    steps = read(12, 1)
    for begin in range(0, table.steps, 4):
        window = [lengths[stream.indices(batch)] for (batch,) in steps[begin:begin + 4]]
        joined = np.concatenate(sorted(window, key=lambda batch: (batch[0], batch[-1])))
        assert np.array_equal(joined, np.sort(joined))
    deals = [[int(lengths[stream.indices(batch)].sum()) for (batch,) in steps[begin:begin + 4]] for begin in (0, 4, 8)]
    assert any(sums != sorted(sums) for sums in deals), "batches come in no order of length"
    for parts, (batch,) in zip(read(12, 3), steps, strict=True):
        assert np.array_equal(np.stack(parts, axis=1).ravel(), batch)


def test_windows_accept_other_streams() -> None:
    samples = uneven()
    table = Schedule(len(samples), 30, 0.5)
    for stream in streams():
        windows = LengthBuckets(table, stream, np.arange(len(samples)), batches=5, rank=0, world_size=1)
        assert sorted(np.concatenate(list(windows)).tolist()) == list(range(table.steps * 30))


def test_invalid_windows_are_rejected() -> None:
    table, stream, lengths = window_case()
    with pytest.raises(ValueError, match=r"lengths of shape \[49\] do not fit a dataset of 50 samples"):
        LengthBuckets(table, stream, lengths[1:], batches=4, rank=0, world_size=1)
    with pytest.raises(ValueError, match="a window needs at least 1 batch, not 0"):
        LengthBuckets(table, stream, lengths, batches=0, rank=0, world_size=1)
    with pytest.raises(ValueError, match="batch_size 12 is smaller than the world size 13"):
        LengthBuckets(table, stream, lengths, batches=4, rank=0, world_size=13)


def test_rules_are_sentences_for_a_report() -> None:
    weighted, balanced = streams()
    table, stream, lengths = window_case()
    windows = LengthBuckets(table, stream, lengths, batches=4, rank=0, world_size=1)
    assert weighted.rule == (  # type: ignore[attr-defined]
        "each position draws a sample by its weight, with replacement: how often each is read is random")
    assert balanced.rule == (  # type: ignore[attr-defined]
        "3 classes alternate; within a class, each sample is read once before any is read again")
    assert windows.rule == "each position is read once per phase, within 4 steps of its own step"


def test_weights_of_any_claimed_size_take_no_memory(tmp_path: Path) -> None:
    """A header that claims 8 TB, and a text of 1 MB for ten samples."""
    file = tmp_path / "weights.npy"
    np.save(file, np.ones(10))
    file.write_bytes(file.read_bytes().replace(b"(10,), }              ", b"(1000000000000,), }   "))
    with pytest.raises(ValueError, match=r"the weights in .* cannot be read"):
        _read_weights(str(file), 10)
    whole = file.read_bytes()
    for damaged in (b"", whole[:20], whole.replace(b"shape", b"shap\0"), whole.replace(b"'shape': ", b"'shape\0\0\0")):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"the weights in .* cannot be read"):
            _read_weights(str(file), 10)
    (tmp_path / "weights.txt").write_text("1\n" * 500_000)
    with pytest.raises(ValueError, match="it has 1,000,000 bytes for 10 samples"):
        _read_weights(str(tmp_path / "weights.txt"), 10)

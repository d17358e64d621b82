"""Splits: the samples of each part, what moves when files are added, and the attributes of a part."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Iterator
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from drumbeat.data.loader import BatchFetcher, WholeBatches
from drumbeat.data.memory import Arrays
from drumbeat.data.order import Integers, key
from drumbeat.data.sampling import ClassBalanced
from drumbeat.data.splits import Split, underlying

FRACTIONS = {"train": 0.7, "validation": 0.1, "test": 0.2}


class Named:
    """Samples that are their names, of patients with five pictures each."""

    def __init__(self, names: list[str], labels: list[int] | None = None) -> None:
        self.texts = names
        if labels is not None:
            self.labels = np.array(labels)
            self.classes = ["normal", "pneumonia"]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.texts[index], index

    def names(self) -> Iterator[str]:
        return iter(self.texts)


class Everything(Named):
    """A dataset with all attributes that a split passes on."""

    def __init__(self) -> None:
        super().__init__([f"{i}.png" for i in range(40)], [i % 2 for i in range(40)])
        self.facts = {"source": "drawn"}
        self.targets = self.labels.tolist()
        self.lengths = np.arange(40) * 10
        self.mark = "a"

    def fetch(self, indices: Integers) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(indices * 2), torch.from_numpy(self.labels[indices])

    def pixels(self, index: int) -> int:
        return index * 100

    def target(self, index: int) -> int:
        return index

    def __getitem__(self, index: int) -> tuple[str, int]:
        return self.texts[index], index

    def fingerprint(self) -> dict[str, str]:
        return {"files": self.mark, "times": "noon"}


def patients(count: int, pictures: int = 5) -> list[str]:
    return [f"person{number}_virus_{picture}.jpeg" for number in range(count) for picture in range(pictures)]


def parts(of: Any, **options: Any) -> dict[str, list[int]]:
    """Samples of each part."""
    fractions = options.pop("fractions", FRACTIONS)
    return {part: Split(of=of, part=part, fractions=fractions, **options).indices.tolist() for part in fractions}


# A published score promises that its split can be reproduced. If this fails, the format has changed.


def test_golden_split() -> None:
    of = Named([f"{i}.png" for i in range(12)], [i % 2 for i in range(12)])
    assert parts(of) == {"train": [0, 3, 4, 5, 7, 8], "validation": [1, 2, 9], "test": [6, 10, 11]}
    assert parts(of, by="class") == {"train": [0, 1, 3, 4, 5, 6, 7, 8], "validation": [2, 9], "test": [10, 11]}


def test_a_name_and_the_seed_decide() -> None:
    """The hash computed again in plain integers; parts are in alphabetical order."""
    of = Named(["a", "b", "é", "\udcff.png", *map(str, range(500))])
    found = parts(of, seed=5)
    hash_key = key(5, "split", "test", "train", "validation").to_bytes(8, "little")
    for index, name in enumerate(of.texts):
        digest = blake2b(name.encode("utf-8", "surrogateescape"), key=hash_key, digest_size=8).digest()
        place = int.from_bytes(digest, "little") / 2**64
        assert index in found["test" if place < 0.2 else "train" if place < 0.9 else "validation"]


@pytest.mark.parametrize("options", [{}, {"by": "group", "group": r"(person\d+)_"}, {"by": "class"}])
def test_parts_hold_each_sample_once(options: dict[str, Any]) -> None:
    of = Named(patients(200), [i % 2 for i in range(1000)])
    found = parts(of, **options)
    assert sorted(chain(*found.values())) == list(range(1000))
    assert all(indices == sorted(indices) for indices in found.values())
    turned = dict(reversed(FRACTIONS.items()))
    assert parts(of, fractions=turned, **options) == {part: found[part] for part in turned}
    assert parts(of, seed=1, **options) != found


def test_random_parts_have_the_requested_sizes() -> None:
    sizes = {part: len(indices) for part, indices in parts(range(100_000)).items()}
    for part, fraction in FRACTIONS.items():  # binomial: five standard deviations
        assert abs(sizes[part] - fraction * 100_000) < 5 * (fraction * (1 - fraction) * 100_000) ** 0.5


def test_samples_beyond_the_fractions_are_in_no_part() -> None:
    found = parts(range(10_000), fractions={"a": 0.1, "b": 0.3})
    assert 0.38 < len(found["a"] + found["b"]) / 10_000 < 0.42
    thirds = {"a": 1 / 3, "b": 1 / 3, "c": 1 / 3}
    assert sorted(chain(*parts(range(300), fractions=thirds).values())) == list(range(300))
    assert sorted(chain(*parts(range(300), fractions=thirds, seed=1).values())) == list(range(300))


@pytest.mark.parametrize("options", [{}, {"by": "group", "group": r"(person\d+)_"}])
def test_new_files_move_no_old_ones(options: dict[str, Any]) -> None:
    old = patients(100)
    new = [*patients(150, pictures=7), "stray.png"]
    before, after = Named(old), Named(sorted(new))
    for part in FRACTIONS:
        names = set(Split(of=before, part=part, fractions=FRACTIONS, **options).names())
        assert names == set(old) & set(Split(of=after, part=part, fractions=FRACTIONS, **options).names())


def test_a_patient_is_in_one_part_only() -> None:
    of = Named([*patients(300), "stray1.png", "stray2.png"])
    found = parts(of, by="group", group=r"(person\d+)_")
    owners = [{of.texts[index].split("_")[0] for index in indices} for indices in found.values()]
    assert sum(map(len, owners)) == len(set.union(*owners)) == 302
    for owner, fraction in zip(owners, FRACTIONS.values(), strict=True):
        assert abs(len(owner) / 302 - fraction) < 0.1


def test_a_prefix_of_a_patient_is_another_patient() -> None:
    """person1 and person10 are different groups: the whole text of the group counts."""
    of = Named(patients(400, pictures=1))
    seen = parts(of, by="group", group=r"(person\d+)_", fractions={"a": 0.5, "b": 0.5})
    together = sum((number in seen["a"]) == (number * 10 in seen["a"]) for number in range(1, 40))
    assert 8 < together < 32


# By class.


@pytest.mark.parametrize("sizes", [(1000, 300), (7, 13), (1, 3)])
def test_each_class_is_cut_to_one_sample(sizes: tuple[int, int]) -> None:
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1], sizes))
    of = Named([f"{i}.png" for i in range(sum(sizes))], labels.tolist())
    for part, fraction in FRACTIONS.items():
        try:
            split = Split(of=of, part=part, fractions=FRACTIONS, by="class")
        except ValueError:  # empty
            counts = np.array([0, 0])
        else:
            counts = np.bincount(split.labels, minlength=2)
        for count, size in zip(counts.tolist(), sizes, strict=True):
            assert abs(count - fraction * size) < 1


@pytest.mark.parametrize("added", [1, 2, 5, 30])
@pytest.mark.parametrize("fractions", [{"a": 0.5, "b": 0.5}, {"a": 0.83, "b": 0.17}, FRACTIONS], ids=len)
def test_new_files_of_a_class_move_as_many_over_a_cut_at_most(fractions: dict[str, float], added: int) -> None:
    """At most `added` samples over each cut between parts, and none of another class."""
    names = [f"{i}.png" for i in range(400)]
    labels = [i % 4 == 0 for i in range(400)]
    before = Named(names, labels=list(map(int, labels)))
    moved_ever = 0
    for case in range(40):
        more = [f"new-{case}-{i}.png" for i in range(added)]
        after = Named([*more, *names], [1] * added + list(map(int, labels)))
        homes: dict[str, list[str]] = {}
        for of in (before, after):
            for part in fractions:
                for name in Split(of=of, part=part, fractions=fractions, by="class").names():
                    homes.setdefault(name, []).append(part)
        moved = Counter(tuple(homes[name]) for name in names if homes[name][0] != homes[name][1])
        ordered = sorted(fractions)
        for cut in range(1, len(ordered)):
            over = sum(count for (old, new), count in moved.items()
                       if (ordered.index(old) < cut) != (ordered.index(new) < cut))
            assert over <= added
        assert not any(homes[name][0] != homes[name][1] for name, label in zip(names, labels, strict=True) if not label)
        moved_ever += moved.total()
    assert moved_ever


# What a part passes on.


def test_a_part_passes_on_all_attributes_of_its_dataset() -> None:
    of = Everything()
    split = Split(of=of, part="train", fractions=FRACTIONS)
    rows = split.indices
    assert len(split) == len(rows) < 40
    assert [split[i] for i in range(len(split))] == [of[i] for i in rows.tolist()]
    assert split.classes == of.classes
    assert split.facts == of.facts
    assert np.array_equal(split.labels, of.labels[rows])
    assert np.array_equal(split.targets, of.labels[rows])
    assert np.array_equal(split.lengths, rows * 10)
    assert list(split.names()) == [f"{i}.png" for i in rows.tolist()]
    assert [split.pixels(i) for i in range(3)] == (rows[:3] * 100).tolist()
    assert isinstance(split, WholeBatches)
    inputs, targets = split.fetch(np.array([2, 0]))
    assert inputs.tolist() == (rows[[2, 0]] * 2).tolist()
    assert targets.tolist() == of.labels[rows[[2, 0]]].tolist()


def test_a_part_lacks_attributes_that_its_dataset_lacks() -> None:
    split = Split(of=range(100), part="train", fractions=FRACTIONS)
    for name in ("classes", "facts", "labels", "targets", "lengths", "names", "fetch", "pixels", "fingerprint"):
        assert not hasattr(split, name)
    assert not isinstance(split, WholeBatches)
    arrays = Split(of=Arrays(torch.arange(100), torch.arange(100)), part="train", fractions=FRACTIONS)
    assert isinstance(arrays, WholeBatches)
    assert not hasattr(arrays, "labels")
    unlabelled = Named(patients(9))
    unlabelled.labels = None  # type: ignore[assignment]
    assert Split(of=unlabelled, part="train", fractions=FRACTIONS).labels is None


def test_a_part_survives_pickling() -> None:
    split = pickle.loads(pickle.dumps(Split(of=Everything(), part="train", fractions=FRACTIONS)))
    assert list(split.names()) == [f"{i}.png" for i in split.indices.tolist()]
    assert split.fetch.__self__ is split


def test_fingerprints_depend_on_the_part_and_the_contents() -> None:
    of = Everything()
    prints = [Split(of=of, part=part, fractions=FRACTIONS).fingerprint() for part in ("train", "test", "train")]
    of.mark = "b"
    prints.append(Split(of=of, part="train", fractions=FRACTIONS).fingerprint())
    assert prints[0] == prints[2]
    assert len({found["files"] for found in prints}) == 3
    assert {len(found["files"]) for found in prints} == {16}
    assert {found["times"] for found in prints} == {"noon"}


def test_parts_work_in_a_loader_a_stream_and_a_split() -> None:
    split = Split(of=Everything(), part="train", fractions=FRACTIONS)
    batch = BatchFetcher(split, indices=ClassBalanced(split, 0, 0).indices).__getitems__(range(6))
    assert batch.targets.tolist() == [0, 1] * 3
    inner = {part: Split(of=split, part=part, fractions={"fit": 0.5, "tune": 0.5}) for part in ("fit", "tune")}
    assert sorted(name for part in inner.values() for name in part.names()) == sorted(split.names())
    assert min(map(len, inner.values())) > 3


# What is refused.


@pytest.mark.parametrize(("message", "options"), [
    (r"there is no part 'valid'; fractions has train, validation, test", {"part": "valid"}),
    (r"the sum of the fractions is 1\.1, which is more than 1", {"fractions": {"train": 0.9, "test": 0.2}}),
    (r"the fraction of 'test' must be above 0 and at most 1, not 0", {"fractions": {"train": 1, "test": 0}}),
    (r"the fraction of 'train' must be .* not -1", {"fractions": {"train": -1}}),
    (r"by must be random, class or group, not patient", {"by": "patient"}),
    (r"by: group needs group: \(a regular expression\), because Named does not tell the groups", {"by": "group"}),
    (r"belongs to by: group", {"group": "(x)"}),
    (r"group: \(x is not a regular expression", {"by": "group", "group": "(x"}),
    (r"must have one group in parentheses, .* not 0", {"by": "group", "group": "x"}),
    (r"must have one group in parentheses, .* not 2", {"by": "group", "group": "(x)(y)"}),
    (r"matches no sample's name; the first name is person0_virus_0\.jpeg", {"by": "group", "group": "(patient)"}),
    (r"Named does not have the classes", {"by": "class"}),
    (r"the part 'train', 1e-06 of 10 samples, has no sample; give it a larger fraction, or split by class",
     {"fractions": {"train": 1e-6, "rest": 0.5}}),
])
def test_invalid_splits_are_reported(message: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=message):
        Split(**{"of": Named(patients(2)), "part": "train", "fractions": FRACTIONS, **options})


def test_names_must_fit_the_set() -> None:
    of = Named(["a", "b"])
    of.names = lambda: iter(["a"])  # type: ignore[method-assign]
    with pytest.raises(ValueError, match=r"Named has 2 samples, but 1 names"):
        Split(of=of, part="train", fractions=FRACTIONS)


class Wrapped:
    """A set that changes the samples of another one."""

    def __init__(self, of: Split) -> None:
        self.of = of

    def __len__(self) -> int:
        return len(self.of)


def test_what_a_set_is_a_part_of() -> None:
    """Through two levels, and through a set that changes samples and has as many."""
    whole = Everything()
    half = Split(of=whole, part="a", fractions={"a": 0.5, "b": 0.5})
    quarter = Split(of=half, part="b", fractions={"a": 0.5, "b": 0.5}, seed=1)
    wrapped = Wrapped(quarter)
    names = list(quarter.names())
    for rows in (np.arange(len(quarter)), np.array([1, 0])):
        for samples in (quarter, wrapped):
            found = underlying(samples, Everything, rows)
            assert found is not None and found[0] is whole
            assert [whole.texts[row] for row in found[1]] == [names[row] for row in rows]
    everything = underlying(quarter, Everything)
    assert everything is not None and everything[1].tolist() == half.indices[quarter.indices].tolist()
    assert underlying([1, 2], Everything) is None

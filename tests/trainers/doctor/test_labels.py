"""Planted faults in classes."""

from __future__ import annotations

import numpy as np
import pytest

from drumbeat.trainers.doctor.labels import class_counts, label_findings
from drumbeat.trainers.doctor.subject import Subject
from tests.trainers.doctor.sets import kinds


class Labelled:
    """A set that has only labels."""

    def __init__(self, labels: list[int], classes: list[str]) -> None:
        self.labels = np.array(labels)
        self.classes = classes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> None: ...


def of(labels: list[int], classes: tuple[str, ...] = ("cat", "dog"), name: str = "train") -> Subject:
    return Subject(name, Labelled(labels, list(classes)))


HEALTHY = of([0, 1, 0, 1])


def test_healthy_classes() -> None:
    assert list(label_findings(HEALTHY, HEALTHY)) == []
    assert list(label_findings(of([1, 0], name="validation"), HEALTHY)) == []
    assert class_counts(HEALTHY) == "train      4: cat 2 (50%), dog 2 (50%)"


def test_one_class() -> None:
    """Of a training set, and of a validation set whose folder is sorted and cut."""
    train = of([1, 1, 1])
    assert kinds(label_findings(train, train))["one_class"].text == "all 3 samples of train are of one class: dog"
    found = kinds(label_findings(of([0, 0], name="validation"), HEALTHY))
    assert found["one_class"].severity == "problem"
    assert list(found) == ["one_class"]


def test_a_class_without_samples() -> None:
    classes = ("cat", "dog", "owl", "rat")
    train, validation = of([0, 1, 2, 3], classes), of([0, 2], classes, "validation")
    found = kinds(label_findings(validation, train))["class_without_samples"]
    assert (found.severity, found.examples) == ("warning", ["dog", "rat"])
    assert found.text == "validation has no sample of 2 of its 4 classes"
    train = of([0, 1, 2], classes)
    assert kinds(label_findings(train, train))["class_without_samples"].severity == "problem"


def test_a_rare_class_is_a_matter_of_the_training_set() -> None:
    labels = [0] * 21 + [1] * 2
    train = of(labels)
    assert kinds(label_findings(train, train))["rare_class"].text == (
        "the rarest class of train, dog, has 2 samples, and cat has 21")
    assert list(label_findings(of(labels, name="validation"), train)) == []


@pytest.mark.parametrize(("classes", "kind", "examples"), [
    (("neg ", "neg", "Pos"), "similar_classes", ["'neg ' = 'neg'"]),
    (("Pos", "neg", "pos"), "similar_classes", ["'Pos' = 'pos'"]),
    (("nan", "neg", "pos"), "missing_label_class", ["'nan'"]),
    (("@eaDir", "__MACOSX", "cat"), "system_folder", ["'@eaDir'", "'__MACOSX'"]),
])
def test_doubtful_names(classes: tuple[str, ...], kind: str, examples: list[str]) -> None:
    train = of([0, 1, 2], classes)
    assert {name: one.examples for name, one in kinds(label_findings(train, train)).items()} == {kind: examples}


def test_a_set_without_labels() -> None:
    without = Subject("train", [1.0, 2.0])  # type: ignore[arg-type]
    assert list(label_findings(without, without)) == []
    assert class_counts(without) == "train      2"

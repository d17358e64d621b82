"""Leaks between sets: the same file, the same input, nearly the same image, the same patient; labels of copies."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from drumbeat.data.image_arrays import ImageArrays
from drumbeat.data.images import ImageFolder
from drumbeat.data.memory import Arrays
from drumbeat.data.splits import Split
from drumbeat.trainers.doctor.leaks import ALIKE, copies_in_train, groups_of, leak_findings, near_twins
from tests.trainers.doctor.sets import folder_subject, healthy, kinds, photo, subject, write


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two healthy sets, with other images in each."""
    monkeypatch.chdir(tmp_path)
    healthy(tmp_path / "train", 0, 40)
    healthy(tmp_path / "val", 500, 10)
    return tmp_path / "train", tmp_path / "val"


def leaks(folders: tuple[Path, Path], group: str | None = None) -> dict[str, list[str]]:
    """The examples of each kind of leak."""
    train, other = folder_subject("train", folders[0]), folder_subject("validation", folders[1])
    return {one.kind: list(one.examples) for one in leak_findings(train, other, group)}


def test_healthy_sets_share_nothing(folders: tuple[Path, Path]) -> None:
    assert leaks(folders) == {}
    assert list(copies_in_train(folder_subject("train", folders[0]))) == []


def test_the_same_file_and_the_same_pixels(folders: tuple[Path, Path]) -> None:
    """A copy, and one that was saved with another compression."""
    train, val = folders
    shutil.copy(train / "cat" / "3.png", val / "cat" / "copy.png")
    Image.open(train / "dog" / "7.png").save(val / "dog" / "saved.png", compress_level=0)
    assert leaks(folders) == {"same_file": ["val/cat/copy.png = train/cat/3.png"],
                              "same_input": ["val/dog/saved.png = train/dog/7.png"]}


@pytest.mark.parametrize("change", ["jpeg", "smaller", "larger", "brighter", "contrast", "noise"])
def test_an_image_that_was_saved_again(folders: tuple[Path, Path], change: str) -> None:
    train, val = folders
    image = Image.open(train / "cat" / "11.png")
    random = np.random.default_rng(1)
    changed = {"jpeg": image, "smaller": image.resize((32, 24)), "larger": image.resize((200, 150)),
               "brighter": ImageEnhance.Brightness(image).enhance(1.1),
               "contrast": ImageEnhance.Contrast(image).enhance(0.7),
               "noise": Image.fromarray(np.clip(np.asarray(image, dtype=np.int64) + random.integers(
                   -12, 12, (48, 64, 3)), 0, 255).astype(np.uint8))}[change]
    write(val, {"cat/again.jpg": changed}, quality=40 if change == "jpeg" else 95)
    assert leaks(folders) == {"near_duplicate": ["val/cat/again.jpg ~ train/cat/11.png"]}


def test_parts_of_one_folder_are_compared(folders: tuple[Path, Path]) -> None:
    """The indices are those of the parts, and the names those of the files."""
    train, _ = folders
    parts = {"train": 0.7, "validation": 0.3}
    for number in range(40):
        shutil.copy(train / "cat" / f"{number}.png", train / "cat" / f"twin-{number}.png")
    images = ImageFolder(root=str(train))
    mine, other = (subject(part, Split(of=images, part=part, fractions=parts)) for part in parts)
    (found,) = leak_findings(mine, other, None)
    names = {name.rpartition("/")[2].removeprefix("twin-") for example in found.examples
             for name in example.split(" = ")}
    assert found.kind == "same_file"
    assert len(names) == len(found.examples) > 5
    assert all(len({name.rpartition("/")[2].removeprefix("twin-") for name in example.split(" = ")}) == 1
               for example in found.examples)


def test_the_same_row_of_a_table(folders: tuple[Path, Path]) -> None:
    rows = torch.arange(60.0).reshape(20, 3)
    train = subject("train", Arrays(rows[:12], torch.zeros(12, dtype=torch.int64)), [])
    other = subject("test", Arrays(rows[10:], torch.zeros(10, dtype=torch.int64)), [])
    (found,) = leak_findings(train, other, None)
    assert found.text == "2 of 10 samples of test have an input that is also in train"
    assert found.examples == ["test sample 0 = train sample 10", "test sample 1 = train sample 11"]


def test_patients_in_two_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recognized by their names, or by a pattern. Numbers alone are no patients."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "train", {f"sick/person{number}_virus_{number}.png": photo(number) for number in range(5)})
    write(tmp_path / "val", {f"sick/person{number}_virus_{number + 20}.png": photo(50 + number)
                             for number in (3, 4, 9)})
    found = leaks((tmp_path / "train", tmp_path / "val"))
    assert found == {"shared_group": [
        "person3: val/sick/person3_virus_23.png, train/sick/person3_virus_3.png",
        "person4: val/sick/person4_virus_24.png, train/sick/person4_virus_4.png"]}
    train, other = (folder_subject(name, tmp_path / name) for name in ("train", "val"))
    (automatic,) = leak_findings(train, other, None)
    assert automatic.text == "2 of 3 groups of val, with 2 samples, are also in train"
    assert automatic.severity == "warning"
    assert list(leak_findings(train, other, r"virus_(\d+)\.")) == []
    (named,) = leak_findings(train, other, r"person([34])")
    assert named.severity == "problem"


def test_groups_that_a_set_names_itself(tmp_path: Path) -> None:
    healthy(tmp_path, 0, 2)
    one = folder_subject("train", tmp_path)
    assert groups_of(one, None) == {}
    one.samples.groups = lambda: ["p1", "p2", "", "p1"]  # type: ignore[attr-defined]
    assert groups_of(one, None) == {"p1": [0, 3], "p2": [1]}


def test_copies_with_other_labels(folders: tuple[Path, Path]) -> None:
    """Exact ones contradict each other; similar ones are to be looked at."""
    train, _ = folders
    shutil.copy(train / "cat" / "2.png", train / "dog" / "swapped.png")
    Image.open(train / "cat" / "4.png").save(train / "dog" / "similar.jpg", quality=60)
    found = kinds(copies_in_train(folder_subject("train", train)))
    assert {kind: list(one.examples) for kind, one in found.items()} == {
        "contradicting_labels": ["train/cat/2.png (cat) = train/dog/swapped.png (dog)"],
        "near_duplicate_labels": ["train/cat/4.png (cat) ~ train/dog/similar.jpg (dog)"]}
    assert found["contradicting_labels"].severity == "problem"


def test_copies_of_the_same_label_are_a_note() -> None:
    random = np.random.default_rng(0)
    pixels = torch.from_numpy(random.integers(0, 256, (6, 1, 8, 8), dtype=np.uint8))
    images = ImageArrays(pixels[[0, 1, 2, 0, 3, 0]], np.array([0, 1, 0, 0, 1, 0]), ["cat", "dog"])
    (found,) = copies_in_train(subject("train", images, []))
    assert (found.severity, found.text) == ("note", "2 samples of train are copies of others")
    assert found.examples == ["train sample 0 = train sample 3 = train sample 5"]


def test_near_twins_are_those_of_all_pairs() -> None:
    """Only neighbors on one axis are compared, and none is missed."""
    random = np.random.default_rng(3)
    others = random.normal(size=(3000, 16)).astype(np.float32)
    some = others[random.permutation(3000)[:700]] + random.normal(scale=0.06, size=(700, 16)).astype(np.float32)
    some, others = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (some, others))
    alike = some @ others.T
    expected = {(int(row), int(alike[row].argmax())) for row in np.flatnonzero(alike.max(1) >= ALIKE)}
    assert 100 < len(expected) < 600
    assert set(near_twins(some, others)) == expected
    labels, other_labels = np.zeros(700, np.int64), (np.arange(3000) % 2)
    alike[:, other_labels == 0] = -1
    expected = {(int(row), int(alike[row].argmax())) for row in np.flatnonzero(alike.max(1) >= ALIKE)}
    assert set(near_twins(some, others, labels, other_labels)) == expected
    assert near_twins(some[:0], others) == near_twins(some, others[:0]) == []


def test_a_part_of_a_part_is_compared_by_its_own_files(tmp_path: Path) -> None:
    """Of other sizes in bytes, so that their order counts."""
    write(tmp_path, {f"{name}/{number:02}.png": photo(100 * place + number, (32 + number, 32))
                     for place, name in enumerate(("cat", "dog")) for number in range(20)})
    whole, halves = ImageFolder(root=str(tmp_path)), {"dev": 0.5, "test": 0.5}
    dev, test = (Split(of=whole, part=part, fractions=halves) for part in halves)
    train = Split(of=dev, part="train", fractions={"train": 0.8, "validation": 0.2}, seed=1)
    assert not {*train.names()} & {*test.names()}
    assert list(leak_findings(subject("train", train), subject("test", test), None)) == []
    (found,) = leak_findings(subject("train", train), subject("test", dev), None)
    assert (found.kind, len(found.examples)) == ("same_file", len(train))

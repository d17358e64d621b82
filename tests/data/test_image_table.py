"""Images that a table lists: targets of all kinds, parts of the table, groups and weights, and errors with the line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from drumbeat.data import image_table
from drumbeat.data.cache import open_cache
from drumbeat.data.image_table import ImageTable
from drumbeat.data.sampling import Weighted, labels_of
from drumbeat.data.splits import Split

ROWS = [
    {"file": "0.png", "label": "cat", "x": "0.25", "y": "1e2", "found": "a|b", "split": "train", "patient": "p",
     "weight": "1"},
    {"file": "1.png", "label": " dog ", "x": "-3", "y": "7", "found": "", "split": "train", "patient": "q",
     "weight": "0"},
    {"file": "2.png", "label": "eel", "x": "1", "y": "0.5", "found": "b", "split": "test", "patient": "p",
     "weight": "2.5"},
]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(3):
        Image.new("RGB", (4, 3), (number * 100, 0, 0)).save(tmp_path / "images" / f"{number}.png")
    return tmp_path / "images"


def write(folder: Path, rows: list[dict[str, Any]], suffix: str = ".csv", separator: str = ",") -> str:
    file = folder / f"list{suffix}"
    if suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    elif suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = [list(rows[0]), *(list(row.values()) for row in rows)]
        file.write_text("".join(separator.join(line) + "\n" for line in lines))
    return str(file)


@pytest.mark.parametrize(("suffix", "separator"), [(".csv", ","), (".csv", ";"), (".csv", "\t"), (".tsv", "\t"),
                                                   (".jsonl", ""), (".parquet", "")])
def test_all_formats_give_the_same_set(suffix: str, separator: str, images: Path) -> None:
    table = ImageTable(file=write(images, ROWS, suffix, separator), labels="label")
    assert [table[index][1] for index in range(len(table))] == [0, 1, 2]
    assert table.classes == ["cat", "dog", "eel"]
    image, _ = table[1]
    assert isinstance(image, Image.Image)
    assert image.getpixel((0, 0)) == (100, 0, 0)
    assert list(table.names()) == ["0.png", "1.png", "2.png"]
    assert labels_of(table).tolist() == [0, 1, 2]


def test_a_part_of_a_table_has_the_classes_of_the_whole(images: Path) -> None:
    file = write(images, ROWS)
    train, test = (ImageTable(file=file, labels="label", where={"split": part}) for part in ("train", "test"))
    assert (list(train.names()), list(test.names())) == (["0.png", "1.png"], ["2.png"])
    assert train.classes == test.classes == ["cat", "dog", "eel"]
    assert (train.targets.tolist(), test[0][1]) == ([0, 1], 2)
    assert train.fingerprint() != test.fingerprint()
    assert list(ImageTable(file=file, labels=None, where={"y": ["7", "0.5"]}).names()) == ["1.png", "2.png"]
    with pytest.raises(ValueError, match=r"no row is taken by where: \{'split': 'trian'\}; the values of split are "
                                         r"2 train, 1 test"):
        ImageTable(file=file, labels="label", where={"split": "trian"})


def test_numbers_and_several_labels(images: Path) -> None:
    file = write(images, ROWS)
    numbers = ImageTable(file=file, labels=["x", "y"], numeric=True)
    assert (numbers.value_names, numbers[1][1].tolist()) == (["x", "y"], [-3, 7])
    assert Split(of=numbers, part="all", fractions={"all": 1.0}).value_names == ["x", "y"]
    lists = ImageTable(file=file, labels="found", separator="|")
    assert lists.classes == ["a", "b"]
    assert [lists[index][1].tolist() for index in range(3)] == [[1, 1], [0, 0], [0, 1]]
    given = ImageTable(file=file, labels="found", separator="|", classes=["b", "c", "a"])
    assert given.targets.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0]]
    assert ImageTable(file=file, labels=None)[2][1] == -1


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_lists_of_labels(suffix: str, images: Path) -> None:
    rows = [{"file": f"{number}.png", "found": found} for number, found in enumerate([["b", "a"], [], ["b"]])]
    file = write(images, rows, suffix)
    assert ImageTable(file=file, labels="found", separator="|").targets.tolist() == [[1, 1], [0, 0], [0, 1]]
    with pytest.raises(ValueError, match=r"(line|row) 1, column 'found'.* is (a list; give a separator|not text)"):
        ImageTable(file=file, labels="found")


def test_groups_stay_together(images: Path) -> None:
    rows = [row | {"patient": f"P{number // 4}", "file": f"{number % 3}.png"} for number, row in
            enumerate(ROWS * 20)]
    table = ImageTable(file=write(images, rows), labels="label", group="patient")
    parts = [Split(of=table, part=part, fractions={"a": 0.5, "b": 0.5}, by="group") for part in "ab"]
    groups = [set(part.groups()) for part in parts]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {f"P{number}" for number in range(15)}
    assert [part.target(0) for part in parts] == [part[0][1] for part in parts]


def test_weights_decide_how_often_a_sample_is_drawn(images: Path) -> None:
    table = ImageTable(file=write(images, ROWS), labels="label", weight="weight")
    counts = np.bincount(Weighted(table, seed=1, phase=0).indices(np.arange(7000)), minlength=3)
    assert counts[1] == 0
    assert counts[0] == pytest.approx(2000, abs=200)
    split = Split(of=table, part="all", fractions={"all": 1.0})
    assert split.weights.tolist() == [1, 0, 2.5]
    with pytest.raises(ValueError, match="or a dataset that has weights"):
        Weighted(ImageTable(file=write(images, ROWS), labels="label"), seed=1, phase=0)


def test_each_frame_of_a_file_can_be_a_sample(images: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((3, 4), level, np.uint16)) for level in (5, 60000)]
    frames[0].save(images / "both.tif", save_all=True, append_images=frames[1:])
    rows = [{"file": "both.tif", "frame": number} for number in (1, 0)]
    table = ImageTable(file=write(images, rows, ".jsonl"), labels=None, frame="frame", channels=1)
    assert table.bits == 16
    assert [int(table.pixels(index)[0, 0]) for index in range(2)] == [60000, 5]
    table.cache = open_cache(table, tmp_path / "cache", workers=0)
    assert [int(table.pixels(index)[0, 0]) for index in range(2)] == [60000, 5]
    first = ImageTable(file=write(images, rows, ".jsonl"), labels=None, frame=0, channels=1)
    assert [int(first.pixels(index)[0, 0]) for index in range(2)] == [5, 5]


def test_a_changed_image_is_decoded_again(images: Path, tmp_path: Path) -> None:
    file = write(images, ROWS)
    for level in (0, 77):
        table = ImageTable(file=file, labels="label", channels=1)
        table.cache = open_cache(table, tmp_path / "cache", workers=0)
        assert int(table.pixels(0)[0, 0]) == level
        Image.new("L", (9, 9), 77).save(images / "0.png")


def test_paths_start_at_the_root_or_at_the_table_or_are_absolute(images: Path, tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    rows = [{"file": name} for name in ("0.png", str(images / "1.png"))]
    table = ImageTable(file=write(tmp_path / "tables", rows, ".jsonl"), labels=None, root=str(images))
    assert [table[index][0].getpixel((0, 0))[0] for index in range(2)] == [0, 100]  # type: ignore[union-attr]
    assert len(ImageTable(file=write(tmp_path, [{"image": "images/0.png"}], ".jsonl"), image="image", labels=None)) == 1


@pytest.mark.parametrize(("change", "arguments", "message"), [
    ({"x": "much"}, {"labels": "x", "numeric": True}, "line 3, column 'x': 'much' is not a number; correct it, remove"),
    ({"x": "inf"}, {"labels": ["x"], "numeric": True}, "line 3, column 'x': 'inf' is not a number"),
    ({"label": ""}, {"labels": "label"}, "line 3, column 'label': the label is empty; give one, or remove the row"),
    ({"label": "nan"}, {"labels": "label"}, "line 3, column 'label': the label 'nan' stands for a missing one; give "
     "one, or remove the row; if it is the name of a class, list all names in classes"),
    ({"found": "c"}, {"labels": "found", "separator": "|", "classes": ["a", "b"]},
     "line 3, column 'found': the class 'c' is not among a, b"),
    ({"file": "9.png"}, {"labels": "label"}, "line 3, column 'file': there is no image '9.png' in "),
    ({"file": ""}, {"labels": "label"}, "line 3, column 'file': the name of the image is empty"),
    ({"weight": "heavy"}, {"labels": "label", "weight": "weight"}, "line 3, column 'weight': 'heavy' is not a number"),
    ({"x": "1.5"}, {"labels": None, "frame": "x"}, "line 2, column 'x': 0.25 is not the number of a frame"),
    ({}, {"labels": "lable"}, "there is no column 'lable'; did you mean 'label'?"),
    ({}, {"labels": "label", "where": {"part": "train"}}, "there is no column 'part'; the columns are: file, label"),
    ({}, {"labels": []}, "labels=[] names no column"),
    ({}, {"labels": ["x"], "separator": "|"}, "separator needs one column of labels"),
    ({}, {"labels": "label", "value_range": [5]}, "value_range must be the two values that become black and white"),
])
def test_what_is_wrong_is_told_with_its_line(change: dict[str, str], arguments: dict[str, Any], message: str,
                                             images: Path) -> None:
    file = write(images, [ROWS[0], ROWS[1] | change, ROWS[2]])
    with pytest.raises(ValueError) as caught:
        ImageTable(file=file, **arguments)
    assert message in str(caught.value)


def test_a_missing_value_can_be_the_name_of_a_class(images: Path) -> None:
    file = write(images, [ROWS[0] | {"label": "NA"}, *ROWS[1:]])
    assert ImageTable(file=file, labels="label", classes=["dog", "NA", "eel"]).targets.tolist() == [1, 0, 2]


def test_rows_of_parquet_files_are_named(images: Path) -> None:
    file = write(images, [ROWS[0], ROWS[1] | {"file": "9.png"}, ROWS[2]], ".parquet")
    with pytest.raises(ValueError, match=r"list.parquet, row 2, column 'file': there is no image '9.png'"):
        ImageTable(file=file, labels="label")


def test_of_many_files_some_are_looked_for(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_table, "LOOKED_FOR", 3)
    rows = [{"file": f"{number % 3}.png"} for number in range(9)]
    table = ImageTable(file=write(images, rows, ".jsonl"), labels=None)
    assert table.notes() == ["3 of its 9 files were looked for, and all are there"]
    rows[3]["file"] = "gone.png"
    table = ImageTable(file=write(images, rows, ".jsonl"), labels=None)
    with pytest.raises(ValueError, match=r"cannot read the image .*gone.png: .*No such file"):
        table[3]
    rows[8]["file"] = "gone.png"
    with pytest.raises(ValueError, match=r"line 9, column 'file': there is no image 'gone.png'"):
        ImageTable(file=write(images, rows, ".jsonl"), labels=None)


def test_the_table_must_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.csv does not exist"):
        ImageTable(file=str(tmp_path / "none.csv"), labels=None)


@pytest.mark.parametrize("empty", [{"label": ""}, {"label": "nan"}, {"weight": ""}, {"x": ""}, {"found": "", "x": "?"}])
def test_cells_of_rows_that_are_not_taken_may_be_empty(images: Path, empty: dict[str, str]) -> None:
    file = write(images, [*ROWS[:2], ROWS[2] | empty])
    train = {"split": "train"}
    table = ImageTable(file=file, labels="label", weight="weight", where=train)
    assert [table[index][1] for index in range(2)] == [0, 1]
    assert table.classes == (["cat", "dog"] if "label" in empty else ["cat", "dog", "eel"])
    assert table.weights.tolist() == [1, 0]
    numbers = ImageTable(file=file, labels=["x", "y"], numeric=True, where=train)
    assert numbers.targets.tolist() == [[0.25, 100], [-3, 7]]
    lists = ImageTable(file=file, labels="found", separator="|", where=train)
    assert lists.targets.tolist() == [[1, 1], [0, 0]]
    assert ImageTable(file=file, labels="label", classes=["cat", "dog"], where=train).labels.tolist() == [0, 1]  # type: ignore[union-attr]
    (column,) = (name for name in ("label", "weight", "x") if name in empty)
    options: dict[str, Any] = {"label": {"labels": "label"}, "weight": {"labels": "label", "weight": "weight"},
                               "x": {"labels": "x", "numeric": True}}[column]
    with pytest.raises(ValueError, match=r"list\.csv, line 4"):
        ImageTable(file=file, where={"split": ["train", "test"]}, **options)


def test_frames_of_rows_that_are_not_taken_may_be_empty(images: Path) -> None:
    file = write(images, [ROWS[0] | {"slice": "0"}, ROWS[1] | {"slice": "-1"}, ROWS[2] | {"slice": ""}])
    table = ImageTable(file=file, labels="label", frame="slice", where={"file": "0.png"})
    assert table.frames is not None and table.frames.tolist() == [0]
    with pytest.raises(ValueError, match=r"line 3.*-1 is not the number of a frame"):
        ImageTable(file=file, labels="label", frame="slice", where={"split": "train"})

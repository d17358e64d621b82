"""Inputs of `drumbeat predict`: which samples and labels are read from folders, tables and text files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from drumbeat.configs.errors import RunError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.trainers.inference.inputs import (
    ImageFormat,
    Images,
    ImageTensors,
    Item,
    TableFormat,
    read_images,
    read_texts,
)
from drumbeat.trainers.tasks import Classification, MultiLabel, Regression

PETS = Classification(classes=["cat", "dog"])
STORIES = TableFormat(sample="story")


def save(file: Path, size: tuple[int, int] = (4, 3)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 7).save(file)
    return file


def labels(items: list[Item], folder: Path) -> dict[str, str]:
    """The label of each file, by its path in the folder."""
    return {str(Path(item.name).relative_to(folder)): item.actual for item in items}


def test_subfolders_with_the_names_of_classes_are_labels(tmp_path: Path) -> None:
    """In the order of their names, without hidden files and files of other kinds."""
    for name in ("dog/b.png", "dog/deep/a.JPG", "cat/1.png", "top.png", ".hidden/c.png", "cat/.d.png"):
        save(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    found = labels(read_images([tmp_path], PETS), tmp_path)
    assert list(found.items()) == [("cat/1.png", "cat"), ("dog/b.png", "dog"), ("dog/deep/a.JPG", "dog"),
                                   ("top.png", "")]
    assert set(labels(read_images([tmp_path], MultiLabel(classes=["cat", "dog"])), tmp_path).values()) == {""}


def test_subfolders_of_which_only_some_are_classes_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "1.png")
    save(tmp_path / "wolf" / "2.png")
    with pytest.raises(RunError) as raised:
        read_images([tmp_path], PETS)
    assert raised.value.faults[0].given == "not classes: wolf"
    assert labels(read_images([tmp_path / "wolf"], PETS), tmp_path) == {"wolf/2.png": ""}


@pytest.mark.parametrize("column", ["file", "path", "image", "filename"])
def test_a_table_of_images_names_them_from_its_own_folder(tmp_path: Path, column: str) -> None:
    (tmp_path / "list.csv").write_text(f"note,label,{column}\nx,cat,a/1.png\ny,dog,2.png\n")
    items = read_images([tmp_path / "list.csv", tmp_path / "3.png"], PETS)
    assert items == [Item("a/1.png", tmp_path / "a" / "1.png", "cat"), Item("2.png", tmp_path / "2.png", "dog"),
                     Item(str(tmp_path / "3.png"), tmp_path / "3.png")]


def test_the_labels_of_other_tasks_have_a_column_each(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"file": "1.png", "x": true, "y": 0}\n{"file": "2.png", "x": 0, "y": 1}\n')
    found = [[item.actual for item in read_images([tmp_path / "list.jsonl"], task)] for task in (
        MultiLabel(classes=["x", "y"]), Regression(values=["x", "y"]), MultiLabel(classes=["x", "z"]), PETS)]
    assert found == [["x", "y"], ["1, 0", "0, 1"], ["", ""], ["", ""]]


def test_texts_are_named_by_file_and_number(tmp_path: Path) -> None:
    plain, table = tmp_path / "a.txt", tmp_path / "b.tsv"
    plain.write_text("one\n\n two\n")
    table.write_text("class\tstory\ncat\tthree\n\tfour\n")
    assert read_texts([plain, table], PETS, STORIES) == [
        Item(f"{plain}:1", "one"), Item(f"{plain}:3", " two"), Item(f"{table}:1", "three", "cat"),
        Item(f"{table}:2", "four")]


def test_images_and_texts_are_not_mistaken_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a text\n")
    (tmp_path / "b.csv").write_text("story\na text\n")
    with pytest.raises(RunError, match="the run's model takes images, and this is a text file"):
        read_images([tmp_path / "a.txt"], PETS)
    with pytest.raises(RunError, match="no column of this table names image files"):
        read_images([tmp_path / "b.csv"], PETS)
    with pytest.raises(RunError, match="the run's model takes texts, and this is an image"):
        read_texts([save(tmp_path / "c.png")], PETS, STORIES)
    with pytest.raises(RunError, match="there is no column 'tale'"):
        read_texts([tmp_path / "b.csv"], PETS, TableFormat(sample="tale"))


@pytest.mark.parametrize(("channels", "shape"), [(1, (3, 4)), (3, (3, 4, 3))])
def test_all_kinds_of_values_have_the_same_pixels(tmp_path: Path, channels: int, shape: tuple[int, ...]) -> None:
    file = tmp_path / "a.png"
    array = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(array).save(file)
    values = [file, str(file), Image.fromarray(array), array, array[..., None], torch.from_numpy(array),
              torch.from_numpy(array)[None], np.stack([array] * 3, 2)]
    items = [Item("a", value) for value in values]
    pixels = Images(items, ImageFormat(channels))
    for number in range(len(pixels)):
        assert pixels.pixels(number).shape == shape
        assert np.array_equal(pixels.pixels(number).reshape(3, 4, -1)[..., 0], array)


def test_images_are_returned_as_the_runs_own_dataset_does() -> None:
    items = [Item("a", np.full((3, 4), 9, np.uint8))]
    image, _ = Images(items, ImageFormat(1))[0]
    assert isinstance(image, Image.Image)
    assert (image.size, image.mode) == ((4, 3), "L")
    for channels in (1, 3):
        tensor, _ = ImageTensors(items, ImageFormat(channels, tensors=True))[0]
        assert isinstance(tensor, Tensor)
        assert (list(tensor.shape), tensor.dtype, tensor.unique().tolist()) == ([channels, 3, 4], torch.uint8, [9])


def test_a_table_has_the_columns_of_the_runs_own_set(tmp_path: Path) -> None:
    """The files are looked for beside the table, and then where the run's set has them."""
    save(tmp_path / "images" / "1.png")
    save(tmp_path / "new" / "2.png")
    (tmp_path / "new" / "list.csv").write_text("picture,slice,finding\n1.png,3,a|b\n2.png,0,\n3.png,1,b\n")
    own = TableFormat(sample="picture", labels=("finding",), separator="|", frame="slice",
                      root=str(tmp_path / "images"))
    task = MultiLabel(classes=["a", "b"])
    assert read_images([tmp_path / "new" / "list.csv"], task, own) == [
        Item("1.png", tmp_path / "images" / "1.png", task.to_text(torch.tensor([1.0, 1.0])), 3),
        Item("2.png", tmp_path / "new" / "2.png", task.to_text(torch.tensor([0.0, 0.0])), 0),
        Item("3.png", tmp_path / "new" / "3.png", task.to_text(torch.tensor([0.0, 1.0])), 1)]


def test_texts_have_the_names_of_the_runs_own_column(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("story,key\none,k1\ntwo,k2\n")
    own = TableFormat(sample="story", name="key")
    assert [item.name for item in read_texts([tmp_path / "a.csv"], PETS, own)] == ["k1", "k2"]
    assert [item.name for item in read_texts([tmp_path / "a.csv"], PETS, STORIES)] == [
        f"{tmp_path / 'a.csv'}:1", f"{tmp_path / 'a.csv'}:2"]


def test_the_columns_are_those_of_the_config() -> None:
    config = build_config([Layer(values={
        "name": "x", "batch_size": 4, "model": {"_target_": "torch.nn.Linear"},
        "phases": {"only": {"epochs": 1, "optimizer": {}}},
        "data": {"train": {"_target_": "drumbeat.data.Split", "of": {
            "_target_": "drumbeat.data.ImageTable", "file": "a.csv", "labels": "found", "separator": "|",
            "root": "/data/images", "frame": "slice"}}}}, origin="config")])
    assert TableFormat.of(config) == TableFormat(sample="file", labels=("found",), separator="|", root="/data/images",
                                                 frame="slice")


def test_images_of_sixteen_bits(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000
    Image.fromarray(array).save(tmp_path / "a.png")
    values = [tmp_path / "a.png", array, Image.fromarray(array), torch.from_numpy(array)[None],
              np.stack([array] * 3, axis=2)]
    images = Images([Item("a", value) for value in values], ImageFormat(1, depth=16))
    for number in range(len(values)):
        assert np.array_equal(images.pixels(number), array)
    sample, _ = images[0]
    assert isinstance(sample, Tensor)
    assert torch.equal(sample[0], torch.from_numpy(array.astype(np.float32) / 65535))
    for value in values[:2]:
        with pytest.raises(ValueError, match="it has 16 bits per value"):
            Images([Item("a", value)], ImageFormat(1, depth=None)).pixels(0)
    ranged = Images([Item("a", array)], ImageFormat(1, depth=16, value_range=(5000, 15000)))
    assert np.unique(ranged.pixels(0)).tolist() == [0, 32768, 65535]


def test_what_no_data_is_is_no_input(tmp_path: Path) -> None:
    for name in ("@eaDir/a.png", "a/b.gif", "plain"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 3)).save(tmp_path / name, format="GIF" if name.endswith("gif") else "PNG")
    assert list(labels(read_images([tmp_path], PETS), tmp_path)) == ["a/b.gif", "plain"]

"""Image folders: what is found, in which order, and what is said where something is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.images import ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for label, names in {"cat": ["b.png", "a.JPG"], "dog": ["deep/c.png", "notes.txt"]}.items():
        for name in names:
            path = tmp_path / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".txt":
                path.write_text("not an image")
            else:
                Image.fromarray(np.full((4, 6, 3), 100, np.uint8)).save(path)
    return tmp_path


def test_classes_and_files_in_sorted_order(folder: Path) -> None:
    images = ImageFolder(root=str(folder))
    assert images.classes == ["cat", "dog"]
    assert [Path(file).name for file in images.paths] == ["a.JPG", "b.png", "c.png"]
    assert [images[index][1] for index in range(len(images))] == [0, 0, 1]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_every_file_has_the_channels_asked_for(folder: Path, channels: int, mode: str) -> None:
    assert {ImageFolder(root=str(folder), channels=channels)[index][0].mode for index in range(3)} == {mode}  # type: ignore[arg-type]


def test_a_picture_turned_by_its_exif_entry_stands_upright(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (6, 4)).save(folder / "cat" / "a.JPG", exif=exif)
    assert ImageFolder(root=str(folder))[0][0].size == (4, 6)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the image folder /nowhere is not there"):
        ImageFolder(root="/nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"the class folder .*empty holds no images"):
        ImageFolder(root=str(folder))
    with pytest.raises(ValueError, match="holds no class folders"):
        ImageFolder(root=str(folder / "empty"))


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "cat" / "b.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot read the image .*cat/b\.png"):
        ImageFolder(root=str(folder))[1]

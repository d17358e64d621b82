"""Images: which files of a folder are found, and what is told about them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from drumbeat.data.images import ImageFolder
from drumbeat.data.pixels import read_pixels


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


def test_missing_folders_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the image folder /nowhere does not exist"):
        ImageFolder(root="/nowhere")
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"the class folder .*empty has no images"):
        ImageFolder(root=str(folder))
    with pytest.raises(ValueError, match="has no class folders"):
        ImageFolder(root=str(folder / "empty"))


def test_a_broken_file_is_named(folder: Path) -> None:
    (folder / "cat" / "b.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"cannot read the image .*cat/b\.png"):
        ImageFolder(root=str(folder))[1]


def test_hidden_folders_and_files_are_left_out(folder: Path) -> None:
    for name in (".cache/x.png", "cat/.b.png", "cat/.thumbnails/y.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("L", (3, 3)).save(folder / name)
    images = ImageFolder(root=str(folder))
    assert images.classes == ["cat", "dog"]
    assert images.paths[:] == ["cat/a.JPG", "cat/b.png", "dog/deep/c.png"]


def test_a_file_name_that_is_not_utf_8(folder: Path) -> None:
    os.rename(folder / "cat" / "b.png", os.fsencode(folder) + b"/cat/\xff.png")  # noqa: PTH104
    images = ImageFolder(root=str(folder))
    assert os.fsencode(images.paths[1]) == b"cat/\xff.png"
    assert images[1][0].size == (6, 4)
    assert images.fingerprint() != ImageFolder(root=str(folder / "dog")).fingerprint()


def test_the_fingerprint_depends_on_names_sizes_and_times(folder: Path) -> None:
    def changed(change: Callable[[], Any]) -> set[str]:
        before = ImageFolder(root=str(folder)).fingerprint()
        change()
        after = ImageFolder(root=str(folder)).fingerprint()
        return {part for part in before if before[part] != after[part]}

    def longer(path: Path) -> None:
        stat = path.stat()
        path.write_bytes(path.read_bytes() + b"!")
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    first = folder / "cat" / "b.png"
    assert changed(lambda: None) == set()
    assert changed(lambda: os.utime(first, ns=(1, 10**18 + 1))) == {"times"}
    assert changed(lambda: longer(first)) == {"files"}
    assert changed(lambda: first.rename(folder / "cat" / "bb.png")) == {"files"}
    assert "files" in changed(lambda: Image.new("L", (2, 2)).save(folder / "dog" / "more.png"))


def test_the_recipe_holds_all_that_pixels_depend_on(folder: Path) -> None:
    recipes = {ImageFolder(root=str(folder), channels=channels, short_side=side).recipe()  # type: ignore[arg-type]
               for channels in (1, 3) for side in (None, 32, 64)}
    assert len(recipes) == 6


def test_auto_reads_the_full_size_until_a_smaller_one_is_set(folder: Path) -> None:
    images = ImageFolder(root=str(folder), channels=1)
    assert images.short_side == "auto"
    assert images.pixels(1).shape == (4, 6)
    images.short_side = 2
    assert images.pixels(1).shape == (2, 3)
    assert images[1][0].size == (3, 2)


@pytest.mark.parametrize("kind", ["pipe", "link", "device", "circle"])
def test_what_is_not_a_regular_file_is_no_image(kind: str, folder: Path) -> None:
    """It is an error: left out in silence, it would change the set."""
    path = folder / "dog" / "deep" / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle":
        path.symlink_to(folder / "dog")
    else:
        path.symlink_to("/dev/zero" if kind == "device" else "missing")
    message = {"pipe": "x.png is a pipe, and not a regular file; remove or rename it",
               "link": "x.png is a link that leads nowhere, and not a regular file",
               "device": "x.png is a device, and not", "circle": "x.png is a link to a folder that contains it"}[kind]
    with pytest.raises(ValueError, match=message):
        ImageFolder(root=str(folder))
    if kind != "circle":
        with pytest.raises(ValueError, match=r"cannot read the image .*x.png: "):
            read_pixels(str(path), channels=3)



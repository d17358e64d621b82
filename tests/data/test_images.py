"""Images: which files of a folder are found, and what is told about them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from drumbeat.data.cache import open_cache
from drumbeat.data.fused import fuse
from drumbeat.data.images import ImageFolder, Normalize
from drumbeat.data.loader import BatchFetcher
from drumbeat.data.mixing import CutMix, Mixup
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
    given: list[dict[str, Any]] = [{}, {"frame": 8}, {"frame": 3}, {"frame": 16}, {"depth": 8}, {"depth": 16},
                                   {"value_range": [0, 8]}]
    assert len({ImageFolder(root=str(folder), **one).recipe() for one in given}) == len(given)


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




# More than 8 bits per value.

def levels(folder: Path, *, most: int = 4095) -> Path:
    """Radiographs of 12 bits in files of 16, in two classes."""
    for number in range(6):
        values = np.random.default_rng(number).integers(0, most + 1, (40, 50), dtype=np.uint16)
        (folder / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(folder / "ab"[number % 2] / f"{number}.png")
    return folder


def stored(images: ImageFolder, index: int) -> Any:
    return np.asarray(Image.open(images.file(index)))


def test_all_bits_arrive_at_the_device(tmp_path: Path) -> None:
    """From the file through the cache, the fused transforms and the batch. Formerly the upper 8 bits did, which are 16
    of the 4096 levels."""
    images = ImageFolder(root=str(levels(tmp_path / "set")), channels=1, value_range=[0, 4095])
    assert (images.bits, images.facts) == (16, {"depth": 16})
    images.cache = open_cache(images, tmp_path / "cache", workers=0)
    transforms = fuse([v2.RandomHorizontalFlip(p=1), v2.CenterCrop(40)])
    fetch = BatchFetcher(images, indices=lambda positions: positions, transforms=transforms, seed=1)
    batch = fetch.__getitems__([0, 3])
    assert batch.inputs.dtype == torch.uint16
    expected = np.stack([np.rint(stored(images, index)[:, ::-1][:, 5:45] * (65535 / 4095)) for index in (0, 3)])
    assert np.array_equal(batch.inputs.numpy()[:, 0], expected)
    assert batch.targets.tolist() == [0, 1]
    normalized = Normalize(mean=[0], std=[1])(batch.inputs)
    np.testing.assert_allclose(normalized.numpy()[:, 0], expected / 65535, rtol=1e-6)


def test_the_same_without_fused_transforms(tmp_path: Path) -> None:
    images = ImageFolder(root=str(levels(tmp_path)), channels=1, value_range=[0, 4095])
    for transforms in ([], [v2.CenterCrop(40)]):
        batch = BatchFetcher(images, indices=lambda positions: positions, transforms=transforms).__getitems__([2])
        assert batch.inputs.dtype == torch.float32
        assert len(batch.inputs.unique()) > 1000
        assert 0.99 < float(batch.inputs.max()) <= 1


@pytest.mark.parametrize("mixing", [Mixup(alpha=0.4), CutMix(alpha=0.4)])
def test_sixteen_bits_are_mixed(mixing: Mixup | CutMix, tmp_path: Path) -> None:
    images = ImageFolder(root=str(levels(tmp_path, most=65535)), channels=1)
    batch = BatchFetcher(images, indices=lambda positions: positions, transforms=fuse([v2.CenterCrop(40)]), seed=1,
                         mixing=mixing).__getitems__([0, 1])
    kept = batch.targets["kept"].view(-1, 1, 1, 1)
    plain = torch.from_numpy(np.stack([stored(images, index)[:, 5:45] for index in (0, 1)]).astype(np.float32))[:, None]
    assert batch.inputs.dtype == torch.uint16
    if isinstance(mixing, Mixup):
        off = batch.inputs.float() - (kept * plain + (1 - kept) * plain.flip(0))
        assert off.abs().max() <= 0.5
    else:
        own = (batch.inputs.float() == plain).flatten(1).float().mean(1)
        assert torch.allclose(own, kept.flatten(), atol=0.001)


def test_the_cache_of_sixteen_bits(tmp_path: Path) -> None:
    images = ImageFolder(root=str(levels(tmp_path / "set")), channels=1, short_side=16)
    cache = open_cache(images, tmp_path / "cache", workers=2)
    assert cache.nbytes == 6 * 16 * 20 * 2
    for index in range(6):
        pixels = cache.pixels(index)
        assert pixels is not None and pixels.dtype == np.uint16
        assert np.array_equal(pixels, images.decode(index))
    eight = ImageFolder(root=images.root, channels=1, short_side=16, depth=8)
    assert open_cache(eight, tmp_path / "cache", workers=0).folder != cache.folder


def test_values_that_leave_most_of_the_range_empty_are_told(tmp_path: Path) -> None:
    images = ImageFolder(root=str(levels(tmp_path)), channels=1)
    most = max(int(stored(images, index).max()) for index in range(6))
    assert images.notes() == [
        f"the brightest value of 6 images that were looked at is {most:,} of 65,535; if files hold 12 bits, "
        "value_range: [0, 4095] uses the whole range"]
    assert ImageFolder(root=str(tmp_path), channels=1, value_range=[0, 4095]).notes() == []


@pytest.mark.parametrize(("arguments", "message"), [
    ({"depth": 12}, "depth must be 8, 16 or auto, not 12"), ({"channels": 2}, "channels must be 1"),
    ({"value_range": [5, 5]}, r"value_range must be the two values .* not \[5, 5\]"),
])
def test_invalid_arguments(arguments: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ImageFolder(root=str(folder), **arguments)

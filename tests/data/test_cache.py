"""The pixel cache: the same pixels bit for bit, and each image decoded once, also after a process was killed."""

from __future__ import annotations

import errno
import fcntl
import io
import multiprocessing
import os
import shutil
import signal
import sys
from collections import namedtuple
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import drumbeat.data.cache
from drumbeat.data.cache import DiskFullError, PixelCache, open_cache
from drumbeat.data.images import ImageFolder
from drumbeat.data.packed import PackedStrings

COUNT = 21
"""Images of the set, no two of the same size."""


class Counted(ImageFolder):
    """Records each file that it decodes, in any process."""

    def __init__(self, root: Path, **options: Any) -> None:
        super().__init__(root=str(root), **options)
        self.log = root.parent / "decoded"

    def decode(self, index: int) -> Any:
        with open(self.log, "a") as log:
            log.write(self.paths[index] + "\n")
        return super().decode(index)

    def decoded(self) -> list[str]:
        """The files decoded since the last call."""
        lines = sorted(self.log.read_text().splitlines()) if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines


class Dying(Counted):
    """Its process is killed when it reads image number `last`."""

    last = 13

    def decode(self, index: int) -> Any:
        if index == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(index)


def draw(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 256, (20 + seed, 50 - seed, 3), dtype=np.uint8)
    Image.fromarray(values if seed % 2 else values[..., 0]).save(file)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(COUNT):
        draw(tmp_path / "set" / "ab"[number % 2] / f"{number:02}.png", number)
    return tmp_path / "set"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Publishes after every two images."""
    monkeypatch.setattr(drumbeat.data.cache, "CHUNK", 2)
    monkeypatch.setattr(drumbeat.data.cache, "PUBLISH_BYTES", 0)


def same(images: ImageFolder, cache: PixelCache) -> bool:
    """Whether all images are in the cache as they are in the files."""
    fresh = ImageFolder(root=images.root, channels=images.channels, short_side=images.short_side)  # type: ignore[arg-type]
    return len(cache.shapes) == len(images) and all(
        (pixels := cache.pixels(index)) is not None and np.array_equal(pixels, fresh.decode(index))
        for index in range(len(images)))


def in_child(work: Callable[[], Any]) -> multiprocessing.process.BaseProcess:
    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    return child


def exit_code(work: Callable[[], Any]) -> int | None:
    child = in_child(work)
    child.join(30)
    return child.exitcode


def home(folder: Path) -> Path:
    (only,) = folder.iterdir()
    return only


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("short_side", [None, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_pixels_as_from_the_files(channels: int, short_side: int | None, workers: int, root: Path,
                                           folder: Path) -> None:
    images = Counted(root, channels=channels, short_side=short_side)
    calls: list[tuple[int, int]] = []
    cache = open_cache(images, folder, workers=workers, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(16, COUNT), (COUNT, COUNT)]
    assert same(images, cache)
    assert cache.nbytes == (home(folder) / "pixels.bin").stat().st_size
    assert images.decoded() == sorted(images.paths)
    read = [images.pixels(index) for index in range(COUNT)]
    assert images.decoded() == sorted(images.paths)
    images.cache = cache
    assert all(np.array_equal(images.pixels(index), read[index]) for index in range(-1, COUNT))
    assert np.array_equal(np.asarray(images[5][0]), read[5])
    assert images.decoded() == []
    with pytest.raises(ValueError, match="read-only"):
        images.pixels(0)[0, 0] = 1


def test_a_second_open_decodes_nothing_and_writes_nothing(root: Path, folder: Path) -> None:
    images = Counted(root)
    open_cache(images, folder, workers=0)
    images.decoded()
    before = {path: path.stat().st_mtime_ns for path in home(folder).iterdir()}
    again = Counted(root)
    assert same(again, open_cache(again, folder, workers=0))
    assert again.decoded() == []
    assert {path: path.stat().st_mtime_ns for path in home(folder).iterdir()} == before


def test_filling_draws_nothing_from_torchs_generator(root: Path, folder: Path) -> None:
    for workers in (0, 2):
        before = torch.get_rng_state()
        open_cache(Counted(root), folder / str(workers), workers=workers)
        assert torch.equal(torch.get_rng_state(), before)


def test_only_changed_images_are_decoded_again(root: Path, folder: Path) -> None:
    images = Counted(root)
    open_cache(images, folder, workers=0)
    images.decoded()
    draw(root / "a" / "02.png", 27)
    os.utime(root / "b" / "05.png", ns=(0, 10**18))
    draw(root / "b" / "new.png", 29)
    (root / "a" / "04.png").unlink()
    (root / "a" / "06.png").rename(root / "a" / "66.png")
    images = Counted(root)
    cache = open_cache(images, folder, workers=0)
    assert images.decoded() == ["a/02.png", "a/66.png", "b/05.png", "b/new.png"]
    assert same(images, cache)
    (root / "b" / "new.png").unlink()
    fewer = Counted(root)
    assert same(fewer, open_cache(fewer, folder, workers=0))
    assert fewer.decoded() == []


def test_other_settings_use_another_cache(root: Path, folder: Path) -> None:
    kinds: list[dict[str, Any]] = [{"channels": 1}, {"channels": 3}, {"channels": 1, "short_side": 16},
                                   {"channels": 1, "short_side": 8}]
    for kind in kinds:
        images = Counted(root, **kind)
        assert same(images, open_cache(images, folder, workers=0))
        assert len(images.decoded()) == COUNT
    shutil.copytree(root, root.parent / "elsewhere" / "set")
    images = Counted(root.parent / "elsewhere" / "set", channels=1)
    assert same(images, open_cache(images, folder, workers=0))
    assert [path.name[:4] for path in folder.iterdir()] == ["set-"] * 5


def test_two_processes_decode_each_image_once(root: Path, folder: Path, eager: None) -> None:
    together = multiprocessing.get_context("fork").Barrier(2)

    def work() -> None:
        images = Counted(root)
        together.wait(30)
        assert same(images, open_cache(images, folder, workers=0))

    children = [in_child(work), in_child(work)]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0]
    assert Counted(root).decoded() == sorted(Counted(root).paths)


def test_a_waiting_process_prints_a_line(root: Path, folder: Path) -> None:
    open_cache(Counted(root), folder, workers=0)
    (home(folder) / "index.npy").unlink()
    reader, writer = os.pipe()

    def work() -> None:
        sys.stderr = os.fdopen(writer, "w")
        images = Counted(root)
        assert same(images, open_cache(images, folder, workers=0))

    with open(home(folder) / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        child = in_child(work)
        os.close(writer)
        with open(reader) as message:
            line = message.readline()
            assert line == f"waiting for another process that fills the cache {home(folder)}\n"
            fcntl.flock(lock, fcntl.LOCK_UN)
            child.join(30)
    assert child.exitcode == 0


@pytest.mark.parametrize("last", [0, 1, 13, COUNT - 1])
def test_a_killed_build_keeps_what_it_published(last: int, root: Path, folder: Path, eager: None,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dying, "last", last)
    assert exit_code(partial(open_cache, Dying(root), folder, workers=0)) == -signal.SIGKILL
    images = Counted(root)
    images.decoded()
    cache = open_cache(images, folder, workers=0)
    assert images.decoded() == sorted(images.paths[last // 2 * 2:])
    assert same(images, cache)
    assert (home(folder) / "pixels.bin").stat().st_size == cache.nbytes


def test_pixels_that_a_killed_build_did_not_publish_are_not_used(root: Path, folder: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        assert exit_code(partial(open_cache, Counted(root), folder, workers=0)) == -signal.SIGKILL
    assert (home(folder) / "pixels.bin").stat().st_size > 0
    images = Counted(root)
    assert same(images, open_cache(images, folder, workers=0))


def test_other_errors_are_not_treated_as_corrupted_images(root: Path, folder: Path) -> None:
    class Broken(Counted):
        def decode(self, index: int) -> Any:
            raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        open_cache(Broken(root), folder, workers=0)


def cut_last_byte(cache: Path) -> None:
    os.truncate(cache / "pixels.bin", (cache / "pixels.bin").stat().st_size - 1)


def other_index(cache: Path) -> None:
    np.save(cache / "index.npy", np.arange(9))


def set_entry(name: str, value: int, cache: Path) -> None:
    """Changes an entry of the index."""
    index = np.load(cache / "index.npy")
    index[name][3] = value
    np.save(cache / "index.npy", index)


def claim_more(cache: Path) -> None:
    content = (cache / "index.npy").read_bytes()
    (cache / "index.npy").write_bytes(content.replace(b"(21,), }            ", b"(210000000000,), }  "))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a byte of the pixels is gone": cut_last_byte,
    "all pixels are gone": lambda cache: os.truncate(cache / "pixels.bin", 0),
    "the file of pixels is gone": lambda cache: (cache / "pixels.bin").unlink(),
    "the index is garbage": lambda cache: (cache / "index.npy").write_bytes(b"\x80garbage" * 30),
    "the index is a pickle": lambda cache: (cache / "index.npy").write_bytes(b"\x80\x04]\x94."),
    "the index is an archive": lambda cache: (cache / "index.npy").write_bytes(b"PK\x03\x04" + bytes(99)),
    "the index is empty": lambda cache: (cache / "index.npy").write_bytes(b""),
    "the index is cut off": lambda cache: os.truncate(cache / "index.npy", 200),
    "the index is another array": other_index,
    "the index claims 5 TB": claim_more,
    "the index has no header": lambda cache: (cache / "index.npy").write_bytes(b"\x93NUMPY\x01\x00\x06\x00{'a\0(\n"),
    "the index has an offset below 0": partial(set_entry, "offset", -1),
    "the index has an offset that overflows": partial(set_entry, "offset", 2**63 - 1),
    "the index has a height below 0": partial(set_entry, "height", -2),
    "the index has a width that overflows": partial(set_entry, "width", 2**31 - 1),
    "the index is gone": lambda cache: (cache / "index.npy").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_built_again(damage: str, root: Path, folder: Path) -> None:
    images = Counted(root)
    reading = open_cache(images, folder, workers=0)
    kept = [reading.pixels(index) for index in range(COUNT)] if "pixels are" not in damage else []
    images.decoded()
    DAMAGES[damage](home(folder))
    assert same(images, open_cache(images, folder, workers=0))
    assert images.decoded() == sorted(images.paths)
    if damage.startswith("the index"):  # whoever reads goes on
        assert all(np.array_equal(old, images.decode(index)) for index, old in enumerate(kept))


def test_an_index_of_lost_pixels_is_not_used_when_the_file_has_grown_again(root: Path, folder: Path) -> None:
    """The second build writes more and other pixels at the same place, and is killed before it publishes."""
    images = Counted(root)
    before = open_cache(images, folder, workers=0).nbytes
    cut_last_byte(home(folder))
    for number in range(30):
        draw(root / "a" / f"00{number:02}.png", number)
    assert exit_code(partial(open_cache, Dying(root), folder, workers=0)) == -signal.SIGKILL
    with open(home(folder) / "pixels.bin", "ab") as file:
        file.write(bytes(before))
    for file_added in root.glob("a/00??.png"):
        file_added.unlink()
    images = Counted(root)
    assert same(images, open_cache(images, folder, workers=0))


def test_an_unreadable_image_raises_the_same_error_from_the_cache(root: Path, folder: Path) -> None:
    (root / "a" / "04.png").write_bytes(b"not a picture")
    images = Counted(root)
    where = images.paths.index("a/04.png")
    message = []
    for _ in range(2):
        with pytest.raises(ValueError, match=r"cannot read the image .*/a/04\.png: ") as caught:
            images.pixels(where)
        message.append(str(caught.value))
        images.cache = open_cache(images, folder, workers=0)
    assert message[0] == message[1]
    assert images.cache is not None
    assert images.cache.pixels(where) is None
    assert np.array_equal(images.pixels(where + 1), images.decode(where + 1))
    images.decoded()
    draw(root / "a" / "04.png", 4)
    repaired = Counted(root)
    assert same(repaired, open_cache(repaired, folder, workers=0))
    assert repaired.decoded()[0] == "a/04.png"


def test_a_set_of_corrupted_images_only(tmp_path: Path, folder: Path) -> None:
    for name in ("x.png", "y.png"):
        (tmp_path / "bad" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / "a" / name).write_text("no image")
    for _ in range(2):
        cache = open_cache(ImageFolder(root=str(tmp_path / "bad")), folder, workers=0)
        assert [cache.pixels(index) for index in range(2)] == [None, None]
        assert cache.nbytes == 0


class Large:
    """A thousand images of 16 MB."""

    root = "/usr"
    channels = 1
    bits = 8
    paths = PackedStrings(map(str, range(1000)))
    stamps = np.zeros((1000, 2), np.int64)

    def decode(self, index: int) -> Any:
        return np.zeros((4000, 4000), np.uint8)

    def recipe(self) -> str:
        return "black"


def test_a_disk_that_is_too_small_is_detected_in_advance(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(drumbeat.data.cache, "CHUNK", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(9 * 10**9, 6_500_000_000, 2_500_000_000))
    with pytest.raises(DiskFullError) as caught:
        open_cache(Large(), folder, workers=0)
    assert caught.value.strerror == "the images take about 16.0 GB, and 2.5 GB are free"
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(home(folder))
    assert (home(folder) / "pixels.bin").stat().st_size == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_keeps_what_was_published(number: int, root: Path, folder: Path, eager: None,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    room = 30_000

    class Full(io.FileIO):
        def write(self, values: Any, /) -> int:
            if self.tell() + len(values) > room:
                raise OSError(number, os.strerror(number))
            return super().write(values)

    def opened(file: Path, mode: str, **options: Any) -> Any:
        return io.BufferedWriter(Full(file, "ab")) if file.name == "pixels.bin" else open(file, mode, **options)

    images = Counted(root)
    with monkeypatch.context() as patch:
        patch.setattr(drumbeat.data.cache, "open", opened, raising=False)
        with pytest.raises(DiskFullError, match=rf"the disk is full after \d+ of {COUNT} images") as caught:
            open_cache(images, folder, workers=0)
    after = int(str(caught.value.strerror).split()[5])
    images.decoded()
    cache = open_cache(images, folder, workers=0)
    missed = images.decoded()
    assert missed == sorted(images.paths[-len(missed):])
    assert 0 < COUNT - len(missed) <= after <= COUNT - len(missed) + 2 < COUNT
    assert same(images, cache)
    assert (home(folder) / "pixels.bin").stat().st_size == cache.nbytes


@pytest.mark.parametrize("name", ["lock", "pixels.bin", ".index.PID.tmp"])
def test_a_link_in_place_of_a_file_is_not_followed(name: str, root: Path, folder: Path) -> None:
    """The names are predictable: somebody may have made a link there that leads to a file of this user."""
    name = name.replace("PID", str(os.getpid()))
    open_cache(Counted(root), folder, workers=0)
    precious = root.parent / "precious"
    precious.write_bytes(b"!" * 10**6)  # more than the pixels, or their index would be invalid
    draw(root / "a" / "new.png", 3)
    (home(folder) / name).unlink(missing_ok=True)
    (home(folder) / name).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        open_cache(Counted(root), folder, workers=0)
    assert precious.read_bytes() == b"!" * 10**6


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_cache_that_another_user_made_in_a_folder_of_everybody_is_not_used(root: Path, folder: Path) -> None:
    images = Counted(root)
    open_cache(images, folder, workers=0)
    os.chown(home(folder), 12345, 12345)
    assert same(images, open_cache(images, folder, workers=0))  # a folder that a group shares
    folder.chmod(0o1777)  # as /tmp
    with pytest.raises(PermissionError, match="it belongs to another user"):
        open_cache(images, folder, workers=0)
    os.chown(root, 12345, 12345)  # who owns the images could change them, too
    assert same(images, open_cache(images, folder, workers=0))


def test_another_error_is_passed_on(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(NotADirectoryError):
        open_cache(Counted(root), tmp_path / "file", workers=0)


def test_forked_readers(root: Path, folder: Path) -> None:
    images = Counted(root)
    images.cache = open_cache(images, folder, workers=0)
    expected = [images.decode(index) for index in range(COUNT)]
    images.decoded()

    def work() -> None:
        assert all(np.array_equal(images.pixels(index), expected[index]) for index in range(COUNT))

    children = [in_child(work) for _ in range(3)]
    for child in children:
        child.join(30)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert images.decoded() == []


def test_a_name_that_is_not_utf_8(root: Path, folder: Path) -> None:
    os.rename(root / "a", os.fsencode(root) + b"/\xff")  # noqa: PTH104
    images = Counted(root)
    images.decode = partial(ImageFolder.decode, images)  # type: ignore[method-assign]
    assert same(images, open_cache(images, folder, workers=0))

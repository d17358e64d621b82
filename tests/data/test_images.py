"""Images: which files of a folder are found, how they are read, and the errors for damaged ones."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from drumbeat.data.demo.radiograph import draw_radiograph
from drumbeat.data.images import ImageFolder, read_pixels

Array = NDArray[Any]


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


@pytest.fixture(scope="module")
def radiograph() -> Image.Image:
    return Image.fromarray(draw_radiograph(np.random.default_rng(3), pneumonia=True))


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


GRAY = (np.arange(24, dtype=np.uint8) * 10).reshape(4, 6)
"""[4, 6]: levels 0 to 230."""

RGB = np.stack([GRAY, 255 - GRAY, GRAY // 2 + 30], axis=-1)


def luma(rgb: Array) -> Array:
    """[..., 3] -> gray levels by ITU-R BT.601."""
    return rgb.astype(float) @ [0.299, 0.587, 0.114]


def over_white(rgb: Array, alpha: Array) -> Array:
    share = alpha.astype(float)[..., None] / 255
    return rgb * share + 255 * (1 - share)


def near(pixels: Array, expected: Array, most: float = 1) -> bool:
    return pixels.shape == expected.shape and pixels.dtype == np.uint8 and bool(
        (abs(pixels.astype(float) - expected) <= most).all())


def both_near(file: Path, rgb: Array, most: float = 1) -> bool:
    """Whether a file is read as these pixels in RGB, and as their luma in gray."""
    return near(read_pixels(str(file), channels=3), rgb, most) and near(
        read_pixels(str(file), channels=1), luma(rgb), most)


@pytest.mark.parametrize("name", ["x.png", "x.bmp", "x.tif", "x.pgm", "x.webp"])
def test_gray_stays_gray(name: str, tmp_path: Path) -> None:
    Image.fromarray(GRAY).save(tmp_path / name, lossless=True)
    assert both_near(tmp_path / name, np.stack([GRAY] * 3, axis=-1))


def test_jpegs_gray_rgb_and_cmyk(tmp_path: Path) -> None:
    shade = np.tile(np.linspace(20, 230, 64).astype(np.uint8), (48, 1))
    colours = np.stack([shade, shade[::-1], 255 - shade], axis=-1)
    Image.fromarray(shade).save(tmp_path / "gray.jpg", quality=95)
    assert both_near(tmp_path / "gray.jpg", np.stack([shade] * 3, axis=-1), 3)
    Image.fromarray(colours).save(tmp_path / "rgb.jpg", quality=95, subsampling=0)
    assert both_near(tmp_path / "rgb.jpg", colours, 6)
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "cmyk.jpg", quality=95, subsampling=0)
    with Image.open(tmp_path / "cmyk.jpg") as opened:
        assert opened.mode == "CMYK"
    assert both_near(tmp_path / "cmyk.jpg", colours, 6)
    assert near(read_pixels(str(tmp_path / "cmyk.jpg"), channels=3, short_side=24),
                read_pixels(str(tmp_path / "rgb.jpg"), channels=3, short_side=24).astype(float), 6)


def test_palettes(tmp_path: Path) -> None:
    picture = Image.fromarray(RGB).quantize(24)
    colours = np.asarray(picture.convert("RGB"))
    numbers = np.asarray(picture)
    picture.save(tmp_path / "plain.png")
    assert both_near(tmp_path / "plain.png", colours)
    picture.save(tmp_path / "one.png", transparency=int(numbers[0, 0]))
    hidden = numbers == numbers[0, 0]
    assert both_near(tmp_path / "one.png", np.where(hidden[..., None], 255, colours))
    alphas = np.linspace(0, 255, 24).astype(np.uint8)
    picture.save(tmp_path / "many.png", transparency=alphas.tobytes())
    assert both_near(tmp_path / "many.png", over_white(colours, alphas[numbers]), 1.5)


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.webp"])
def test_transparent_pixels_become_white(name: str, tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6)
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / name, lossless=True, exact=True)
    assert both_near(tmp_path / name, over_white(RGB, alpha), 1.5)
    assert read_pixels(str(tmp_path / name), channels=1)[0, 0] == 255


def test_gray_with_alpha_and_a_transparent_colour(tmp_path: Path) -> None:
    alpha = np.linspace(0, 255, 24).astype(np.uint8).reshape(4, 6)
    Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(alpha)]).save(tmp_path / "la.png")
    assert both_near(tmp_path / "la.png", over_white(np.stack([GRAY] * 3, axis=-1), alpha), 1.5)
    Image.fromarray(GRAY).save(tmp_path / "trns.png", transparency=0)
    assert both_near(tmp_path / "trns.png", np.stack([np.where(GRAY == 0, 255, GRAY)] * 3, axis=-1))


def test_one_bit(tmp_path: Path) -> None:
    bits = GRAY % 20 == 0
    for name in ("x.png", "x.tif", "x.bmp"):
        Image.fromarray(bits).save(tmp_path / name)
        assert both_near(tmp_path / name, np.stack([bits * 255.0] * 3, axis=-1))


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_sixteen_bits_keep_the_upper_eight(name: str, tmp_path: Path) -> None:
    Image.fromarray(GRAY.astype(np.uint16) * 256 + 200).save(tmp_path / name)
    assert np.array_equal(read_pixels(str(tmp_path / name), channels=1), GRAY)
    assert np.array_equal(read_pixels(str(tmp_path / name), channels=3), np.stack([GRAY] * 3, axis=-1))


def test_sixteen_bits_in_the_other_order_and_in_thirty_two(tmp_path: Path) -> None:
    values = GRAY.astype(np.int32) * 256
    Image.fromarray(values).save(tmp_path / "32.tif")
    Image.frombytes("I;16B", (6, 4), values.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    for name in ("32.tif", "big.tif"):
        assert np.array_equal(read_pixels(str(tmp_path / name), channels=1), GRAY)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("values", "message"), [
    (np.array([[0, 65536]], np.int32), "its values need more than 16 bits"),
    (np.array([[-1, 5]], np.int32), "its values need more than 16 bits"),
    (np.array([[0.0, 1.0]], np.float32), "it has floating-point values, and their range is unknown"),
])
def test_values_that_are_not_pixels_are_rejected(values: Array, message: str, channels: int, tmp_path: Path) -> None:
    file = tmp_path / "x.tif"
    Image.fromarray(values).save(file)
    with pytest.raises(ValueError) as caught:
        read_pixels(str(file), channels=channels)
    assert str(caught.value) == f"cannot read the image {file}: {message}"


def seen(stored: Array, orientation: int) -> Array:
    """A picture as a viewer displays it, by the table in the EXIF standard of where the first row and column are."""
    return {1: stored, 2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1),
            6: stored[::-1].swapaxes(0, 1), 7: stored[::-1, ::-1].swapaxes(0, 1),
            8: stored[:, ::-1].swapaxes(0, 1)}[orientation]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["x.png", "x.tif", "lzw.tif", "x.webp", "x.jpg"])
def test_pictures_are_rotated_by_their_exif_orientation(name: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = np.kron(GRAY, np.ones((16, 16), np.uint8))
    options: dict[str, Any] = {"compression": "tiff_lzw"} if name == "lzw.tif" else {"lossless": True, "quality": 95}
    file = str(tmp_path / name)
    Image.fromarray(stored).save(file, exif=exif, **options)
    upright = seen(stored, orientation)
    most = 3 if name == "x.jpg" else 1
    assert near(read_pixels(file, channels=1), upright, most)
    assert near(read_pixels(file, channels=3), np.stack([upright] * 3, axis=-1), most)
    half = read_pixels(file, channels=1, short_side=32)
    assert half.shape == ((32, 48) if orientation < 5 else (48, 32))
    assert abs(half[::8, ::8].astype(float) - upright[::16, ::16]).max() < 12


def test_sixteen_bits_rotated(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(GRAY.astype(np.uint16) * 256).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(read_pixels(str(tmp_path / "x.png"), channels=1), seen(GRAY, 6))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_corrupted_files_are_named(radiograph: Image.Image, tmp_path: Path) -> None:
    for suffix in ("jpg", "png", "tif", "webp"):
        radiograph.resize((300, 200)).save(tmp_path / f"x.{suffix}")
        whole = (tmp_path / f"x.{suffix}").read_bytes()
        for kept in (len(whole) // 2, 20, 0):
            (tmp_path / f"x.{suffix}").write_bytes(whole[:kept])
            with pytest.raises(ValueError, match=rf"^cannot read the image {tmp_path}/x\.{suffix}: ."):
                read_pixels(str(tmp_path / f"x.{suffix}"), channels=1, short_side=100)
    with pytest.raises(ValueError, match=r"cannot read the image .*none\.png: .*No such file"):
        read_pixels(str(tmp_path / "none.png"), channels=3)


@pytest.mark.parametrize(("kept", "reason"), [
    (b"", "the file is empty"),
    (b"<html>\n<body>", "the file is text: <html>"),
    (bytes(range(7, 99)), "the file is not an image in a format that Pillow knows"),
    (500, "the JPEG file is truncated"),
    (20, "the JPEG file is truncated"),
])
def test_the_apparent_kind_of_a_file_is_reported(radiograph: Image.Image, tmp_path: Path, kept: bytes | int,
                                         reason: str) -> None:
    file = tmp_path / "x.jpg"
    radiograph.resize((300, 200)).save(file)
    file.write_bytes(kept if isinstance(kept, bytes) else file.read_bytes()[:kept])
    with pytest.raises(ValueError) as caught:
        read_pixels(str(file), channels=1)
    assert str(caught.value) == f"cannot read the image {file}: {reason}"


def test_a_decompression_bomb_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (200, 100)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 9_999)
    with pytest.raises(ValueError, match=r"cannot read the image .*bomb\.png: .*could be decompression bomb"):
        read_pixels(str(tmp_path / "bomb.png"), channels=1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "most"), [(388, 1.2), (300, 1.2), (128, 2), (61, 3.5)])
def test_read_at_the_size_needed(side: int, most: float, channels: int, mode: str, radiograph: Image.Image,
                                 tmp_path: Path) -> None:
    """A JPEG is already shrunk while it is decoded. The size is the same; the gray levels differ little on average."""
    picture = radiograph.resize((1011, 777))
    if mode == "RGB":
        picture = Image.merge("RGB", [picture, picture.rotate(180), picture])
    for suffix in ("jpg", "bmp"):
        file = str(tmp_path / f"x.{suffix}")
        picture.save(file)
        small = read_pixels(file, channels=channels, short_side=side)
        full = Image.fromarray(read_pixels(file, channels=channels))
        expected = np.asarray(full.resize((round(1011 * side / 777), side), Image.Resampling.BILINEAR))
        assert small.shape == expected.shape
        off = abs(small.astype(float) - expected).mean()
        assert off < (most if suffix == "jpg" else 0.01)


@pytest.mark.parametrize("size", [(50, 40), (40, 90), (40, 40), (7, 3)])
def test_nothing_is_enlarged(size: tuple[int, int], tmp_path: Path) -> None:
    for suffix in ("jpg", "png"):
        file = str(tmp_path / f"x.{suffix}")
        Image.linear_gradient("L").resize(size).save(file)
        for side in (40, 41, 500):
            assert np.array_equal(read_pixels(file, channels=1, short_side=side), read_pixels(file, channels=1))


def test_the_thinnest_strip_keeps_one_pixel(tmp_path: Path) -> None:
    Image.new("L", (900, 2), 77).save(tmp_path / "x.png")
    assert read_pixels(str(tmp_path / "x.png"), channels=1, short_side=1).shape == (1, 450)


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


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(("width", "height"), [(2**31 - 1, 2**31 - 1), (60_000, 60_000), (0, 5)])
def test_a_picture_of_any_claimed_size_is_a_sample_that_cannot_be_read(width: int, height: int, tmp_path: Path) -> None:
    """A PNG of a few bytes whose header claims up to 4 billion megapixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(
        b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))
    with pytest.raises(ValueError, match=r"cannot read the image .*bomb.png: "):
        read_pixels(str(tmp_path / "bomb.png"), channels=3)

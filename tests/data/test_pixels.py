"""How image files become pixels, and the errors for damaged ones."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from drumbeat.data.demo.radiograph import draw_radiograph
from drumbeat.data.pixels import as_image, read_header, read_pixels

Array = NDArray[Any]


@pytest.fixture(scope="module")
def radiograph() -> Image.Image:
    return Image.fromarray(draw_radiograph(np.random.default_rng(3), pneumonia=True))


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
    (np.array([[0, 65536]], np.int32), "0 to 65536"), (np.array([[-1, 5]], np.int32), "-1 to 5"),
    (np.array([[0.0, 1.0]], np.float32), "0 to 1"),
])
def test_values_that_are_not_pixels_are_rejected(values: Array, message: str, channels: int, tmp_path: Path) -> None:
    file = tmp_path / "x.tif"
    Image.fromarray(values).save(file)
    with pytest.raises(ValueError) as caught:
        read_pixels(str(file), channels=channels)
    assert str(caught.value) == (
        f"cannot read the image {file}: its values go from {message}, and it does not tell which are black and white; "
        "give the set value_range: [black, white]")


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


# More than 8 bits per value.

DEEP = (np.arange(24, dtype=np.uint16) * 2801 + 3).reshape(4, 6)
"""[4, 6]: values 3 to 64426, of which no two share their upper 8 bits."""
DEEP_RGB = np.stack([DEEP, 65535 - DEEP, DEEP // 2 + 30], axis=-1)


def deep(file: Path, channels: int = 1, **options: Any) -> Array:
    pixels = read_pixels(str(file), channels=channels, depth=16, **options)
    assert pixels.dtype == np.uint16
    return pixels


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.pgm"])
def test_sixteen_bits_of_gray_are_kept(name: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / name)
    assert np.array_equal(deep(tmp_path / name), DEEP)
    assert np.array_equal(deep(tmp_path / name, channels=3), np.stack([DEEP] * 3, axis=-1))
    assert read_header(str(tmp_path / name)).depth == 16


@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_sixteen_bits_of_colour_are_kept(name: str, tmp_path: Path) -> None:
    """Pillow opens such files as 8 bits."""
    cv2.imwrite(str(tmp_path / name), DEEP_RGB[..., ::-1])
    assert np.array_equal(deep(tmp_path / name, channels=3), DEEP_RGB)
    assert np.array_equal(deep(tmp_path / name), np.rint(luma(DEEP_RGB)))
    assert np.array_equal(read_pixels(str(tmp_path / name), channels=3), DEEP_RGB >> 8)
    assert read_header(str(tmp_path / name)).depth == 16


def test_transparent_pixels_of_sixteen_bits_become_white(tmp_path: Path) -> None:
    opacity = np.full((4, 6, 1), 65535, np.uint16)
    opacity[0], opacity[1] = 0, 32768
    cv2.imwrite(str(tmp_path / "x.png"), np.concatenate([DEEP_RGB[..., ::-1], opacity], axis=-1))
    seen_values = deep(tmp_path / "x.png", channels=3)
    assert (seen_values[0] == 65535).all()
    assert np.array_equal(seen_values[1], np.rint(DEEP_RGB[1] * (32768 / 65535) + 65535 * (1 - 32768 / 65535)))
    assert np.array_equal(seen_values[2:], DEEP_RGB[2:])


def test_twelve_bits_in_sixteen_keep_all_their_levels(tmp_path: Path) -> None:
    """Of 4096 levels the upper 8 bits keep 16."""
    levels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    Image.fromarray(levels).save(tmp_path / "x.png")
    spread = deep(tmp_path / "x.png", value_range=(0, 4095))
    assert np.array_equal(spread, np.rint(levels * (65535 / 4095)))
    assert len(np.unique(spread)) == 4096
    assert np.array_equal(read_pixels(str(tmp_path / "x.png"), channels=1, value_range=(0, 4095)),
                          np.rint(levels * (255 / 4095)))
    assert len(np.unique(read_pixels(str(tmp_path / "x.png"), channels=1))) == 16


def test_values_outside_the_range_become_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-2000, -1000, -300, 400, 3000]], np.int32)).save(tmp_path / "x.tif")
    assert deep(tmp_path / "x.tif", value_range=(-1000, 400)).tolist() == [[0, 0, 32768, 65535, 65535]]
    Image.fromarray(np.array([[-0.5, 0, 0.25, 2]], np.float32)).save(tmp_path / "y.tif")
    assert deep(tmp_path / "y.tif", value_range=(0, 1)).tolist() == [[0, 0, 16384, 65535]]
    Image.fromarray(np.array([[0, np.nan]], np.float32)).save(tmp_path / "y.tif")
    with pytest.raises(ValueError, match="it has values that are NaN or infinite"):
        deep(tmp_path / "y.tif", value_range=(0, 1))


def test_files_of_eight_bits_in_a_set_of_sixteen(tmp_path: Path) -> None:
    """White stays white, and the range is for files of more bits."""
    Image.fromarray(GRAY).save(tmp_path / "x.png")
    assert np.array_equal(deep(tmp_path / "x.png", value_range=(0, 4095)), GRAY.astype(np.uint16) * 257)


def test_a_file_with_more_bits_than_the_set_is_an_error(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x.png: it has 16 bits per value, .* have 8; give the set depth: 16 to keep"):
        read_pixels(str(tmp_path / "x.png"), channels=1, depth=None)


def test_zero_is_white_in_some_tiffs(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "x.tif", tiffinfo={262: 0})
    assert np.array_equal(deep(tmp_path / "x.tif"), 65535 - DEEP)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_rotated_too(channels: int, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if channels == 1:
        Image.fromarray(DEEP).save(tmp_path / "x.png", exif=exif)
        assert np.array_equal(deep(tmp_path / "x.png"), seen(DEEP, orientation))
    else:
        cv2.imwrite(str(tmp_path / "x.png"), DEEP_RGB[..., ::-1])
        plain = (tmp_path / "x.png").read_bytes()
        (tmp_path / "x.png").write_bytes(plain[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + plain[33:])
        assert np.array_equal(deep(tmp_path / "x.png", channels=3), seen(DEEP_RGB, orientation))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_shrunk_like_eight(channels: int, radiograph: Image.Image, tmp_path: Path) -> None:
    pixels = np.asarray(radiograph.resize((101, 77)))
    Image.fromarray(pixels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(pixels).save(tmp_path / "plain.png")
    small = deep(tmp_path / "deep.png", channels=channels, short_side=32)
    plain = read_pixels(str(tmp_path / "plain.png"), channels=channels, short_side=32)
    assert small.shape == plain.shape
    assert abs(small / 257 - plain).max() <= 1


@pytest.mark.parametrize("suffix", ["tif", "gif", "webp"])
def test_one_of_several_frames_must_be_named(suffix: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{suffix}"
    frames = [Image.new("L", (5, 4), level) for level in (0, 255, 0)]
    frames[0].save(file, save_all=True, append_images=frames[1:], **({"lossless": True} if suffix == "webp" else {}))
    with pytest.raises(ValueError, match=r"it has 3 frames; give the set frame: 0 to read the first of each file"):
        read_pixels(str(file), channels=1)
    assert [int(read_pixels(str(file), channels=1, frame=number)[0, 0]) for number in range(3)] == [0, 255, 0]
    with pytest.raises(ValueError, match="it has no frame 3; its frames are 0 to 2"):
        read_pixels(str(file), channels=1, frame=3)


def test_frames_of_sixteen_bits_in_colour(tmp_path: Path) -> None:
    cv2.imwritemulti(str(tmp_path / "x.tif"), [DEEP_RGB[..., ::-1], DEEP_RGB])
    assert np.array_equal(deep(tmp_path / "x.tif", channels=3, frame=1), DEEP_RGB[..., ::-1])


def test_previews_behind_a_photograph_are_no_frames(tmp_path: Path) -> None:
    """MPO, as some cameras write it."""
    photo, preview = Image.new("RGB", (40, 30), "red"), Image.new("RGB", (4, 3))
    photo.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[preview])
    assert read_pixels(str(tmp_path / "x.jpg"), channels=3).shape == (30, 40, 3)


def test_transforms_get_eight_bits_as_an_image_and_sixteen_as_floats() -> None:
    assert isinstance(as_image(GRAY), Image.Image)
    floats = as_image(DEEP_RGB)
    assert isinstance(floats, torch.Tensor)
    assert (floats.shape, floats.dtype) == ((3, 4, 6), torch.float32)
    assert np.array_equal(floats.numpy(), (DEEP_RGB / np.float32(65535)).transpose(2, 0, 1))
    assert list(as_image(DEEP).shape) == [1, 4, 6]

"""Fused transforms: equal to the plain ones, within tolerances that a shift by one pixel exceeds."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from drumbeat.data import fused
from drumbeat.data.demo.radiograph import draw_radiograph
from drumbeat.data.fused import Canvas, Fused, fuse, needed_side
from drumbeat.data.pixels import as_image, read_pixels

FLAGSHIP = Path(__file__).parents[2] / "configs" / "resnet50_xray.yaml"


def flagship(purpose: str) -> list[Any]:
    """Its list of transforms: "train" or "evaluate"."""
    nodes: Any = OmegaConf.to_container(OmegaConf.load(FLAGSHIP).data.transforms[purpose])
    return [getattr(v2, node.pop("_target_").rpartition(".")[2])(**node) for node in nodes]


def jitter(**ranges: Any) -> v2.ColorJitter:
    return v2.ColorJitter(**{name: (value, value) for name, value in ranges.items()})


def turned(degrees: float, **options: Any) -> v2.RandomRotation:
    return v2.RandomRotation((degrees, degrees), **options)


CASES: dict[str, tuple[list[Any], float, float]] = {
    "resized crop": ([v2.RandomResizedCrop(300, scale=(0.8, 1.1))], 0.3, 0.18),
    "small resized crop": ([v2.RandomResizedCrop(64)], 1.3, 0.33),
    "enlarged crop": ([v2.RandomResizedCrop(600, scale=(0.2, 0.5))], 0.2, 0.12),
    "resize": ([v2.Resize(300)], 0.25, 0.16),
    "resize to a third": ([v2.Resize(100)], 0.7, 0.22),
    "resize one side down, the other up": ([v2.Resize((500, 120))], 0.4, 0.17),
    "resize up": ([v2.Resize([600])], 0.17, 0.11),
    "rotation": ([turned(10)], 1.2, 0.45),
    "bilinear rotation": ([turned(-35, interpolation="bilinear")], 0.65, 0.55),
    "brightness": ([jitter(brightness=1.4)], 0, 0),
    "contrast": ([jitter(contrast=0.6)], 0.4, 0.4),
    "saturation": ([jitter(saturation=0.4)], 0.25, 0.2),
    "all of the jitter": ([v2.ColorJitter(0.4, 0.4, 0.4)], 0.6, 0.6),
    "two rotations": ([turned(20), v2.RandomRotation(30)], 1.8, 0.75),
    "rotation of a crop": ([v2.Resize(300), v2.CenterCrop(256), turned(35)], 1.5, 0.4),
    "flip, then shrink": ([v2.RandomHorizontalFlip(p=1), v2.Resize(64)], 1.1, 0.3),
    "turn, then shrink": ([turned(10), v2.Resize(64)], 1.3, 0.35),
    "shrink twice": ([v2.RandomResizedCrop(300, scale=(0.8, 1)), v2.Resize(160)], 0.9, 0.3),
    "less contrast, then black corners": ([jitter(contrast=0.3), turned(35)], 0.6, 0.4),
    "less contrast, then a black frame": ([jitter(contrast=0.3), v2.CenterCrop(600)], 0.3, 0.3),
    "crop, then a black frame": ([v2.Resize(300), v2.CenterCrop(200), v2.RandomCrop(200, padding=30)], 0.3, 0.19),
    "enlarged, then a black frame": ([v2.Resize(600), v2.CenterCrop(700)], 0.32, 0.14),
    "flagship, training": (flagship("train"), 2, 1.4),
    "flagship, evaluation": (flagship("evaluate"), 0.3, 0.19),
}
"""By name: transforms; the largest mean difference of pixels from the plain run; and the same for averages of 4 by 4
pixels, in which the noise of a radiograph cannot hide a shift."""

EXACT: dict[str, list[Any]] = {
    "horizontal flip": [v2.RandomHorizontalFlip(p=1)],
    "vertical flip": [v2.RandomVerticalFlip(p=1)],
    "perhaps a flip": [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()],
    "centre crop": [v2.CenterCrop(257)],
    "centre crop wider": [v2.CenterCrop((201, 503))],
    "centre crop larger": [v2.CenterCrop((519, 522))],
    "centre crop of a centre crop": [v2.CenterCrop((300, 501)), v2.CenterCrop((501, 300)), v2.CenterCrop(420)],
    "random crop": [v2.RandomCrop(224)],
    "random crop, padded": [v2.RandomCrop(300, padding=(20, 50))],
    "random crop, padded on four sides": [v2.RandomCrop((320, 290), padding=[5, 10, 70, 150])],
    "random crop, padded if needed": [v2.RandomCrop(450, pad_if_needed=True)],
    "crops one on the other": [v2.RandomCrop(280), v2.RandomHorizontalFlip(p=1), v2.RandomCrop(280, padding=40)],
    "as it is": [v2.RandomHorizontalFlip(p=0)],
}
"""By name: transforms that move pixels without interpolating any."""


@cache
def radiograph(number: int, mode: str) -> Image.Image:
    """About 400 pixels on the longer side: 0 is upright, 1 is landscape; "L" or "RGB"."""
    gray = Image.fromarray(draw_radiograph(np.random.default_rng([3, 1][number]), pneumonia=bool(number)))
    gray = gray.resize((331, 402) if number == 0 else (415, 322))
    if mode == "L":
        return gray
    values = np.asarray(gray)
    return Image.fromarray(np.stack([values, values[::-1] // 2 + 60, 255 - np.roll(values, 25, 1)], axis=-1))


def run(transforms: list[Any], image: Any, seed: int) -> tuple[Any, Tensor]:
    """The output, and the generator's state after it."""
    torch.manual_seed(seed)
    for transform in transforms:
        image = transform(image)
    return image, torch.get_rng_state()


def differences(transforms: list[Any], mode: str) -> tuple[float, float]:
    """The largest mean difference from the plain run over some pictures and seeds, of pixels and of averages of 4 by 4
    pixels. Asserts that shapes, types and generator states are equal."""
    pixels, blocks = [0.0], [0.0]
    for seed in range(3):
        image = radiograph(seed % 2, mode)
        plain, after_plain = run(transforms, image, seed)
        once, after_once = run(fuse(transforms), image, seed)
        assert (once.size, once.mode) == (plain.size, plain.mode)
        assert torch.equal(after_once, after_plain)
        off = np.asarray(once).astype(np.float32) - np.asarray(plain)
        pixels.append(float(abs(off).mean()))
        blocks.append(float(abs(cv2.blur(off, (4, 4))).mean()))
    return max(pixels), max(blocks)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("case", CASES)
def test_fused_equals_plain_within_the_tolerance(case: str, mode: str) -> None:
    transforms, pixels_bound, blocks_bound = CASES[case]
    pixels, blocks = differences(transforms, mode)
    assert pixels <= pixels_bound
    assert blocks <= blocks_bound


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("case", CASES)
def test_sixteen_bits_equal_plain_floats_within_the_same_tolerance(case: str, mode: str) -> None:
    """The plain transforms get float32 in 0..1, as a set of 16 bits returns without fused transforms."""
    transforms, pixels_bound, blocks_bound = CASES[case]
    for seed in range(3):
        pixels = np.asarray(radiograph(seed % 2, mode)).astype(np.uint16) * np.uint16(257)
        plain, after_plain = run(transforms, as_image(pixels), seed)
        torch.manual_seed(seed)
        once = fuse(transforms)[0].pixels(pixels)
        assert once.dtype == np.uint16
        assert torch.equal(torch.get_rng_state(), after_plain)
        off = once.astype(np.float32) / 257 - (plain[0] if mode == "L" else plain.permute(1, 2, 0)).numpy() * 255
        assert abs(off).mean() <= pixels_bound + 0.02
        assert abs(cv2.blur(off, (4, 4))).mean() <= blocks_bound + 0.02


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("case", EXACT)
def test_sixteen_bits_without_interpolation_are_those_of_eight(case: str, mode: str) -> None:
    pixels = np.asarray(radiograph(0, mode))
    eight, sixteen = (run([fuse(EXACT[case])[0].pixels], values, 5)[0]
                      for values in (pixels, pixels.astype(np.uint16) * np.uint16(257)))
    assert np.array_equal(sixteen, eight.astype(np.uint16) * np.uint16(257))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("case", EXACT)
def test_transforms_without_interpolation_are_equal_bit_for_bit(case: str, mode: str) -> None:
    assert differences(EXACT[case], mode) == (0, 0)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_brightness_is_equal_and_contrast_except_for_the_rounding_of_the_mean(mode: str) -> None:
    image = radiograph(0, mode)
    for one, most in (jitter(brightness=0.55), 0), (jitter(brightness=1.4), 0), (jitter(contrast=0.5), 1):
        off = np.asarray(fuse([one])[0](image)).astype(int) - np.asarray(one(image))
        assert abs(off).max() <= most


def test_the_mean_of_contrast_uses_no_pixels_outside_the_image() -> None:
    """33 pixels are not a multiple of the 4 of which one is sampled."""
    flat = Image.new("L", (33, 35), 200)
    assert np.unique(np.asarray(fuse([jitter(contrast=0.2)])[0](flat))).tolist() == [200]


@pytest.mark.parametrize("size", [(1, 1), (7, 1), (3, 2)])
def test_the_smallest_pictures_pass(size: tuple[int, int]) -> None:
    image = Image.new("L", size, 90)
    for transforms, _, _ in CASES.values():
        assert run(fuse(transforms), image, 0)[0].size == run(transforms, image, 0)[0].size


def test_edges_do_not_fade_when_a_part_is_enlarged() -> None:
    white = Image.new("L", (50, 40), 255)
    for transforms in ([v2.Resize(300)], [v2.RandomResizedCrop(224)], [v2.Resize(300), v2.RandomHorizontalFlip(p=1)]):
        assert np.asarray(run(fuse(transforms), white, 0)[0]).min() == 255


MISTAKES: dict[str, tuple[str, Any, list[str]]] = {
    "turned the other way": ("rotated", lambda rotated, canvas, degrees: rotated(canvas, -degrees), [
        "rotation", "bilinear rotation", "two rotations", "turn, then shrink", "flagship, training"]),
    "a degree too far": ("rotated", lambda rotated, canvas, degrees: rotated(canvas, degrees + 1), [
        "rotation", "bilinear rotation", "two rotations", "rotation of a crop", "flagship, training"]),
    "flipped the other way": ("flipped", lambda flipped, canvas, sideways: flipped(canvas, sideways=not sideways), [
        "flip, then shrink", "flagship, training"]),
    "cropped a pixel lower": ("cropped", lambda cropped, canvas, top, *rest, **named: cropped(
        canvas, top + 1, *rest, **named), [
            "rotation of a crop", "crop, then a black frame", "enlarged, then a black frame", "flagship, training",
            "flagship, evaluation"]),
    "half a pixel aside": ("seen_through", lambda seen, canvas, inner, *size, **edges: seen(
        canvas, (*inner[:2], inner[2] + 0.5, *inner[3:]), *size, **edges), [
            "resize", "resize up", "rotation", "flagship, training", "flagship, evaluation"]),
    "black before the contrast": ("is_black_outside", property(lambda canvas: True), [
        "less contrast, then black corners", "less contrast, then a black frame", "two rotations",
        "crop, then a black frame"]),
}
"""By name: an attribute of Canvas, a wrong version of it, and the cases that must detect it."""


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_tolerances_detect_mistakes(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong, cases = MISTAKES[mistake]
    right = getattr(Canvas, name)
    replacement = wrong if isinstance(wrong, property) else lambda canvas, *args, **kwargs: wrong(
        right, canvas, *args, **kwargs)
    monkeypatch.setattr(Canvas, name, replacement)
    kept = [case for case in cases if (found := differences(CASES[case][0], "L"))[0] <= CASES[case][1]
            and found[1] <= CASES[case][2]]
    assert kept == []


@pytest.mark.parametrize("one", [
    v2.RandomRotation(10, expand=True), v2.RandomRotation(10, fill=128), v2.RandomRotation(10, center=[0, 0]),
    v2.RandomResizedCrop(64, interpolation="bicubic"), v2.RandomResizedCrop(64, interpolation=0),
    v2.Resize(64, interpolation=InterpolationMode.NEAREST), v2.Resize(64, max_size=99), v2.Resize(None, max_size=99),
    v2.RandomCrop(64, padding=4, fill=9), v2.RandomCrop(64, padding=4, padding_mode="reflect"), v2.ColorJitter(hue=0.1),
    v2.Pad(4), v2.RandomAffine(10), v2.Compose([v2.CenterCrop(64)]),
], ids=repr)
def test_transforms_that_cannot_be_fused_are_unchanged(one: Any) -> None:
    assert fuse([one, v2.CenterCrop(64)])[0] is one


@pytest.mark.parametrize("bilinear", ["bilinear", InterpolationMode.BILINEAR, Image.Resampling.BILINEAR, 2])
def test_bilinear_by_any_name(bilinear: Any) -> None:
    assert isinstance(fuse([v2.Resize(64, interpolation=bilinear)])[0], Fused)
    assert isinstance(fuse([v2.RandomResizedCrop(64, interpolation=bilinear)])[0], Fused)


def test_a_subclass_of_torchvisions_crop_is_not_fused() -> None:
    class MyCrop(v2.CenterCrop):  # type: ignore[misc]
        pass

    assert not isinstance(fuse([MyCrop(64)])[0], Fused)


def test_the_list_is_cut_at_the_first_that_is_unknown() -> None:
    transforms = [v2.Resize(300), v2.CenterCrop(256), v2.GaussianBlur(3), v2.RandomHorizontalFlip()]
    first, *rest = fuse(transforms)
    assert repr(first) == "Fused(Resize, CenterCrop)"
    assert rest == transforms[2:]
    assert fuse([]) == []
    (whole,) = fuse(flagship("train"))
    assert repr(whole) == "Fused(RandomResizedCrop, RandomRotation, ColorJitter, RandomHorizontalFlip, CenterCrop)"


@pytest.mark.parametrize("case", ["flagship, training", "flagship, evaluation", "rotation of a crop"])
def test_tensors_and_other_modes_are_not_fused(case: str) -> None:
    transforms = CASES[case][0]
    rgb = radiograph(0, "RGB")
    tensor = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)
    plain, after_plain = run(transforms, tensor, 1)
    once, after_once = run(fuse(transforms), tensor, 1)
    assert torch.equal(once, plain)
    assert torch.equal(after_once, after_plain)
    for image in (rgb.convert("CMYK"), rgb.convert("L").convert("F")):
        if case != "flagship, training":  # whose saturation there is none of in these modes
            assert run(fuse(transforms), image, 1)[0].tobytes() == run(transforms, image, 1)[0].tobytes()


def test_arrays_as_images_and_the_source_untouched() -> None:
    """Also from read-only memory, like a cache's."""
    for mode in ("L", "RGB"):
        pixels = np.array(radiograph(1, mode))
        before = pixels.copy()
        pixels.flags.writeable = False
        for transforms, _, _ in CASES.values():
            (whole,) = fuse(transforms)
            torch.manual_seed(5)
            result = whole.pixels(pixels)
            assert np.array_equal(result, np.asarray(run([whole], Image.fromarray(pixels), 5)[0]))
        assert np.array_equal(pixels, before)


def test_a_crop_that_does_not_fit_raises_as_the_plain_one_does() -> None:
    transforms = [v2.RandomCrop(999)]
    with pytest.raises(ValueError, match=r"Required crop size .* is larger than input image size"):
        run(transforms, radiograph(0, "L"), 0)
    with pytest.raises(ValueError, match=r"Required crop size .* is larger than input image size"):
        run(fuse(transforms), radiograph(0, "L"), 0)


def test_black_corners_where_the_plain_ones_are() -> None:
    transforms = [v2.Resize(300), v2.CenterCrop(256), turned(45)]
    white = Image.new("L", (400, 400), 255)
    plain, once = (np.asarray(run(several, white, 0)[0]).astype(int) for several in (transforms, fuse(transforms)))
    assert (plain[:35, :35] == 0).all()
    assert (once[:35, :35] == 0).all()
    assert np.count_nonzero(abs(plain - once) > 128) < 20  # of 65,536: edges, by less than a pixel


@pytest.mark.parametrize(("transforms", "side"), [
    (flagship("train"), 336),  # 300 / sqrt(0.8)
    (flagship("evaluate"), 300),
    ([v2.RandomResizedCrop(224)], 792),  # 224 / sqrt(0.08)
    ([v2.RandomResizedCrop((100, 200), scale=(0.25, 1), ratio=(1, 1))], 400),
    ([v2.RandomResizedCrop(100, scale=(0.25, 1), ratio=(0.5, 4))], 200),
    ([v2.RandomResizedCrop(100, scale=(0, 1))], None),
    ([v2.Resize((200, 320)), v2.CenterCrop(100)], 320),
    ([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip(), v2.ColorJitter(0.1), v2.RandomRotation(5), v2.Resize(64)],
     64),
    ([v2.Resize(64, max_size=99)], None),
    ([v2.Resize(None, max_size=99)], None),
    ([v2.CenterCrop(64), v2.Resize(64)], None),
    ([v2.RandomCrop(64)], None),
    ([partial(v2.Resize(64))], None),
    ([v2.RandomHorizontalFlip()], None),
    ([], None),
])
def test_the_side_an_image_needs(transforms: list[Any], side: int | None) -> None:
    assert needed_side(transforms) == side


@pytest.mark.parametrize("purpose", ["train", "evaluate"])
def test_images_read_at_the_needed_side_look_the_same(purpose: str, tmp_path: Path) -> None:
    """Except for a fraction of a pixel: a crop's position and an image's longer side are rounded to whole pixels."""
    file = str(tmp_path / "large.png")
    Image.fromarray(draw_radiograph(np.random.default_rng(3), pneumonia=True)).save(file)
    transforms = flagship(purpose)
    (whole,) = fuse(transforms)
    averages = []
    for side in (None, needed_side(transforms)):
        torch.manual_seed(2)
        pixels = whole.pixels(read_pixels(file, channels=1, short_side=side))
        averages.append(cv2.blur(pixels.astype(np.float32), (4, 4)))
    assert abs(averages[0] - averages[1]).mean() < 2


def test_a_canvas_of_noise_is_shrunk_by_averaging() -> None:
    """For every way to shrink it: taking every second pixel of noise would keep the noise."""
    noise = np.random.default_rng(0).integers(0, 256, (400, 400), dtype=np.uint8)
    for canvas in (Canvas(noise, 400, 400), Canvas(noise, 400, 400).flipped(sideways=True),
                   Canvas(noise, 400, 400).rotated(90), Canvas(noise, 400, 400).resized(300, 300)):
        assert canvas.resized(50, 50).painted().std() < noise.std() / 5


def test_opencv_uses_one_thread_so_that_forks_are_safe() -> None:
    assert fused.cv2.getNumThreads() == 1

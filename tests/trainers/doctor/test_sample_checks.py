"""Samples read one by one: their errors, their sizes, and sums of their pixels as a model would get them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import CenterCrop

from drumbeat.data.images import ImageFolder
from drumbeat.data.memory import Arrays
from drumbeat.trainers.build import Sets
from drumbeat.trainers.doctor.sample_checks import CHECKED, SIDE, SampleCheck, check_samples, miniature


class Rows:
    """Samples that are read one by one, and are no images."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(3), 0


class Reversed:
    """The samples of another set in the opposite order, as a part of a set has `of` and `indices`."""

    def __init__(self, of: ImageFolder) -> None:
        self.of = of
        self.indices = np.arange(len(of))[::-1]

    def __len__(self) -> int:
        return len(self.of)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return self.of[int(self.indices[index])]


def sets_of(samples: ImageFolder | Reversed | Arrays | Rows) -> Sets:
    transforms = [] if isinstance(samples, Arrays | Rows) else [CenterCrop(2)]
    return Sets(train=samples, validation=None, test=None, train_transforms=[], evaluate_transforms=transforms)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An image of 3 x 4 pixels, one of 6 x 2 in colour, and one that is damaged."""
    (tmp_path / "cat").mkdir()
    Image.new("L", (3, 4), 51).save(tmp_path / "cat" / "0.png")
    Image.new("RGB", (6, 2), (255, 0, 102)).save(tmp_path / "cat" / "1.png")
    (tmp_path / "cat" / "2.png").write_bytes(b"nothing")
    return tmp_path


def test_errors_sizes_and_sums(folder: Path) -> None:
    """The size is that of the file, and the sums are those of the four pixels after the crop: a fifth, a fifth squared
    and a pixel, four times."""
    images = ImageFolder(root=str(folder), channels=3)
    gray, colour, damaged = check_samples(sets_of(images), images, "train", everything=True)
    assert (gray.index, gray.size, gray.mode, gray.error) == (0, (3, 4), "L", "")
    assert gray.sums == pytest.approx([0.8, 0.16, 4.0] * 3)
    assert (colour.size, colour.mode) == ((6, 2), "RGB")
    assert colour.sums == pytest.approx([4.0, 4.0, 4.0, 0.0, 0.0, 4.0, 1.6, 0.64, 4.0])
    assert "cat/2.png" in damaged.error
    assert (damaged.index, damaged.sums) == (2, ())


def test_a_part_of_a_set_names_the_right_files(folder: Path) -> None:
    (folder / "cat" / "2.png").unlink()
    images = Reversed(ImageFolder(root=str(folder), channels=1))
    assert [check.mode for check in check_samples(sets_of(images), images, "train", everything=True)] == ["RGB", "L"]


def test_of_a_large_set_some_are_checked_unless_all_are_asked_for() -> None:
    """The same ones each time, and from all of the set. Samples that are not images have no size and no sums."""
    large = Rows(3 * CHECKED)
    found, again = ([*check_samples(sets_of(large), large, "train", everything=False)] for _ in range(2))
    assert found == again
    indices = [check.index for check in found]
    assert len({*indices}) == CHECKED
    assert indices == sorted(indices)
    assert indices[0] < CHECKED / 4
    assert indices[-1] > 2.75 * CHECKED
    assert replace(found[0], digest=b"") == SampleCheck(indices[0])
    few = Rows(3)
    assert [check.index for check in check_samples(sets_of(few), few, "train", everything=False)] == [0, 1, 2]
    assert len([*check_samples(sets_of(large), large, "train", everything=True)]) == 3 * CHECKED


def test_a_set_in_memory_is_read_as_a_whole() -> None:
    """The digest is that of the input: -0.0 and 0.0 have different bits."""
    rows = torch.zeros(2 * CHECKED, 3)
    rows[7, 1], rows[8, 1] = -0.0, 1.0
    memory = Arrays(rows, torch.zeros(2 * CHECKED))
    found = [*check_samples(sets_of(memory), memory, "train", everything=False)]
    digests = [check.digest for check in found]
    assert len(digests) == 2 * CHECKED
    assert [index for index, digest in enumerate(digests) if digest != digests[0]] == [7, 8]


def test_what_is_constant_and_what_is_not_finite() -> None:
    images = torch.rand(4, 3, 5, 5)
    images[1] = torch.tensor([0.1, 0.2, 0.3])[:, None, None]  # one color
    images[2, 0, 0, 0] = math.nan
    memory = Arrays(images, torch.tensor([0.0, 0.0, 0.0, math.inf]))
    found = [*check_samples(sets_of(memory), memory, "train", everything=True)]
    assert [check.constant for check in found] == [False, True, False, False]
    assert [check.nonfinite for check in found] == [False, False, True, True]
    assert [bool(check.miniature) for check in found] == [True, False, False, False]


def test_a_miniature_has_mean_0_and_norm_1_and_ignores_contrast() -> None:
    image = torch.rand(3, 40, 60)
    small = miniature(image).astype(np.float64)
    assert small.shape == (SIDE * SIDE,)
    assert abs(small.mean()) < 1e-4
    assert np.linalg.norm(small) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(miniature(0.5 * image + 0.2), small, atol=1e-3)

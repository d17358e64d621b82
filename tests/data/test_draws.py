"""The drawn parameters: those of torchvision's transforms, with the generator in the same state after them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from drumbeat.data import draws

SEEDS = range(200)


def drawn(seed: int, draw: Any) -> tuple[Any, bytes]:
    """What is drawn, and the generator's state after it."""
    torch.manual_seed(seed)
    return draw(), torch.get_rng_state().numpy().tobytes()


def made(transform: Any, height: int = 340, width: int = 425) -> dict[str, Any]:
    parameters: dict[str, Any] = transform.make_params([torch.empty(1).expand(1, height, width)])
    return parameters


@pytest.mark.parametrize(("transform", "height", "width"), [
    (v2.RandomResizedCrop(300, scale=(0.8, 1.1)), 340, 425),
    (v2.RandomResizedCrop(64), 32, 32),
    (v2.RandomResizedCrop(64, scale=(1, 1)), 500, 10),
    (v2.RandomResizedCrop(64, scale=(1, 1)), 10, 500),
    (v2.RandomResizedCrop(64, scale=(2, 3)), 40, 50),
    (v2.RandomResizedCrop((100, 200), scale=(0.25, 1), ratio=(1, 1)), 31, 77),
])
def test_a_resized_crop(transform: Any, height: int, width: int) -> None:
    """Also where no crop fits in ten tries: too narrow, too wide, too large."""
    for seed in SEEDS:
        ours, after = drawn(seed, lambda: draws.resized_crop(transform, height, width))
        theirs, after_theirs = drawn(seed, lambda: made(transform, height, width))
        assert ours == tuple(theirs[name] for name in ("top", "left", "height", "width"))
        assert after == after_theirs


def test_an_angle() -> None:
    transform = v2.RandomRotation((-10, 35))
    for seed in SEEDS:
        assert drawn(seed, lambda: draws.uniform(*transform.degrees)) == drawn(seed, lambda: made(transform)["angle"])


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 1.0])
def test_whether_a_transform_happens(probability: float) -> None:
    for seed in SEEDS:
        ours = drawn(seed, lambda: draws.happens(probability))
        assert ours == drawn(seed, lambda: bool(torch.rand(1) < probability))


@pytest.mark.parametrize("ranges", [{}, {"contrast": 0.4}, {"brightness": 0.2, "saturation": (0.5, 2)}])
def test_a_jitter(ranges: dict[str, Any]) -> None:
    transform = v2.ColorJitter(**ranges)
    for seed in SEEDS:
        ours, after = drawn(seed, lambda: draws.jitter(transform))
        theirs, after_theirs = drawn(seed, lambda: made(transform))
        assert ours.order == theirs["fn_idx"].tolist()
        assert ours[1:] == tuple(theirs[f"{name}_factor"] for name in ("brightness", "contrast", "saturation"))
        assert after == after_theirs

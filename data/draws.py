"""The parameters that torchvision's v2 transforms draw, without their detours: the same values from the same generator,
in a third of the time."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch


class Jitter(NamedTuple):
    """What `ColorJitter` draws."""

    order: list[int]
    """In which order to change the brightness (0), the contrast (1), the saturation (2) and the hue (3)."""
    brightness: float | None
    contrast: float | None
    saturation: float | None


def resized_crop(transform: Any, height: int, width: int) -> tuple[int, int, int, int]:
    """The top, left, height and width that `RandomResizedCrop` crops from an image of that size, as in torchvision's
    `RandomResizedCrop.make_params`."""
    value, place = torch.empty(1), torch.empty(1, dtype=torch.int64)
    logs = _logarithms(tuple(transform.ratio))
    for _ in range(10):
        area = height * width * value.uniform_(*transform.scale).item()
        ratio = value.uniform_(*logs).exp_().item()
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            top = place.random_(0, height - down + 1).item()
            return int(top), int(place.random_(0, width - across + 1).item()), down, across
    across, down, (least, most) = width, height, (min(transform.ratio), max(transform.ratio))
    if width / height < least:
        down = round(width / least)
    elif width / height > most:
        across = round(height * most)
    return (height - down) // 2, (width - across) // 2, down, across


@cache
def _logarithms(ratio: tuple[float, ...]) -> list[float]:
    """In float32, as torchvision computes them."""
    logs: list[float] = torch.log(torch.tensor(ratio)).tolist()
    return logs


def uniform(low: float, high: float) -> float:
    return torch.empty(1).uniform_(low, high).item()


def happens(probability: float) -> bool:
    """Whether a transform with this probability is applied, as in `RandomHorizontalFlip`."""
    return torch.empty(1).uniform_().item() < float(np.float32(probability))


def jitter(transform: Any) -> Jitter:
    """What `ColorJitter` without a hue draws."""
    order, value = torch.randperm(4).tolist(), torch.empty(1)
    ranges = transform.brightness, transform.contrast, transform.saturation
    return Jitter(order, *(None if one is None else value.uniform_(*one).item() for one in ranges))

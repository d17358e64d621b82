"""Regression datasets: synthetic images, and images listed in a table."""

from __future__ import annotations

import numpy as np
import pytest

from drumbeat.data.regression import FillLevel


def test_a_picture_is_white_down_to_its_level() -> None:
    levels = FillLevel(n=200, image_size=90)
    seen = []
    for image, level in (levels[index] for index in range(200)):
        assert (image.size, image.mode, level.shape) == ((90, 90), "L", (1,))
        rows = np.asarray(image)[:, 7]
        white = int(level * 90)
        assert (rows[:white] == 255).all() and (rows[white:] == 0).all()
        seen.append(float(level))
    assert 0 <= min(seen) < 0.03
    assert 0.97 < max(seen) < 1
    assert np.mean(seen) == pytest.approx(0.5, abs=0.05)


def test_pictures_depend_on_their_number_and_the_seed() -> None:
    one, same, other = FillLevel(n=10), FillLevel(n=20), FillLevel(n=10, seed=1)
    assert one[3][1] == same[3][1] != other[3][1]
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    with pytest.raises(IndexError):
        one[10]

"""The pictures of the demo radiographs: their shape, their values, and what the class changes."""

from __future__ import annotations

import numpy as np
import pytest

from drumbeat.data.demo import radiograph
from drumbeat.data.demo.radiograph import draw_radiograph


def test_opacities_only_brighten_and_only_lungs() -> None:
    rng = np.random.default_rng(3)
    body = radiograph._body(rng, 1000, 1200)
    patches = radiograph._opacities(rng, body)
    assert patches.shape == body.lungs.shape == (250, 300)
    assert patches.min() == 0
    assert patches.max() > 0.15
    assert not patches[body.lungs == 0].any()


@pytest.mark.parametrize("pneumonia", [False, True])
def test_the_same_state_gives_the_same_picture(pneumonia: bool) -> None:
    one, same = (draw_radiograph(np.random.default_rng(5), pneumonia=pneumonia) for _ in range(2))
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    assert 1080 <= max(one.shape) <= 1500
    assert len(np.unique(one)) > 200, "a film shows nearly all of 256 levels"


def test_the_shapes_are_within_what_is_promised() -> None:
    """The longer side has 1,080 to 1,500 pixels, and width to height is 0.8 to 1.45."""
    rng = np.random.default_rng(0)
    sizes = np.array([radiograph._size(rng) for _ in range(500)])
    ratios = sizes[:, 1] / sizes[:, 0]
    assert (sizes.max(1).min(), sizes.max(1).max()) >= (1080, 1400)
    assert sizes.max() <= 1500
    assert 0.799 < ratios.min() < 0.85
    assert 1.40 < ratios.max() < 1.451


def test_the_class_changes_nothing_but_the_lungs() -> None:
    """Size, pose and build are drawn before the opacities, alike for both."""
    well, ill = (draw_radiograph(np.random.default_rng(8), pneumonia=one) for one in (False, True))
    assert well.shape == ill.shape
    assert not np.array_equal(well, ill)

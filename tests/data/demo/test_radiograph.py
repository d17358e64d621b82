"""The pictures of the demo radiographs: their shape, their values, and what the class changes."""

from __future__ import annotations

import numpy as np

from drumbeat.data.demo import radiograph


def test_opacities_only_brighten_and_only_lungs() -> None:
    rng = np.random.default_rng(3)
    body = radiograph._body(rng, 1000, 1200)
    patches = radiograph._opacities(rng, body)
    assert patches.shape == body.lungs.shape == (250, 300)
    assert patches.min() == 0
    assert patches.max() > 0.15
    assert not patches[body.lungs == 0].any()

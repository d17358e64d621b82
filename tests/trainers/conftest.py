"""Fixtures of the tests of the trainers."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from tests.trainers.saved_runs import IMAGES, draw_images, run_of


@pytest.fixture
def images(tmp_path: Path) -> RunDir:
    """A run that classifies gray images of cats and dogs, with its first weights saved as step 3."""
    draw_images(tmp_path)
    return run_of(tmp_path, IMAGES)

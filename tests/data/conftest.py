"""A file of reviews, and its vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.data.vocabulary import Vocabulary
from tests.data.reviews import ROWS, write


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "train.csv", ROWS)


@pytest.fixture
def vocabulary(file: str) -> Vocabulary:
    return Vocabulary(file=file)

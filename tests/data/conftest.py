"""The file of reviews, and the words learnt from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.data.vocabulary import Words
from tests.data.reviews import ROWS, write


@pytest.fixture
def file(tmp_path: Path) -> str:
    return write(tmp_path / "train.csv", ROWS)


@pytest.fixture
def words(file: str) -> Words:
    return Words(file=file)

"""Requests for a profile are taken once, and damaged ones do not concern the run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.profile_records import Profile, ProfileRequest


def test_a_request_is_taken_once(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    request = ProfileRequest(id="a", steps=5, ranks=(0, 1))
    request.write(file)
    assert ProfileRequest.take(file) == request
    assert ProfileRequest.take(file) is None


@pytest.mark.parametrize("content", ["", "[]", '{"id": "a", "steps": 0, "ranks": []}',
                                     '{"id": "a", "steps": 1001, "ranks": [0]}'])
def test_a_damaged_request_is_removed(tmp_path: Path, content: str) -> None:
    file = tmp_path / "profile.json"
    file.write_text(content)
    with pytest.raises(DamagedError):
        ProfileRequest.read(file)
    assert ProfileRequest.take(file) is None
    assert not file.exists()


PROFILE = Profile(id="a", step=120, steps=5, data=(0.0001, 0.0002), forward=(0.01, math.nan),
                  backward=(0.02, 0.03), communication=(0.0112, 0.0), optimizer=(0.001, 0.001), other=(0.0, 0.0),
                  samples=(32.0, 31.5), traces=(1,))

TABLE = """\
steps 120 to 124, milliseconds of an average step
rank        step  data  forward  backward  communication  optimizer  other  samples
0          42.30  0.10    10.00     20.00          11.20       1.00   0.00       32
1          31.20  0.20        -     30.00           0.00       1.00   0.00     31.5
median     36.75  0.15        -     25.00           5.60       1.00   0.00
max - min  11.10  0.10        -     10.00          11.20       0.00   0.00"""


def test_the_table() -> None:
    assert PROFILE.text == TABLE

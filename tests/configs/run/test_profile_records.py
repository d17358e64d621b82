"""Requests for a profile are taken once, and damaged ones do not concern the run."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.profile_records import ProfileRequest


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

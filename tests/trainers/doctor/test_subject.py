"""What the doctor calls a sample, and how many it has read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drumbeat.data.memory import Arrays
from drumbeat.trainers.doctor.sample_checks import SampleCheck
from drumbeat.trainers.doctor.subject import Subject
from tests.trainers.doctor.sets import folder_subject, healthy


def test_a_file_a_name_or_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    healthy(tmp_path / "train", 0, 2)
    images = folder_subject("train", tmp_path / "train")
    assert (images.sample(1), images.label(1)) == ("train/cat/1.png", "cat")
    assert images.names == ["cat/0.png", "cat/1.png", "dog/0.png", "dog/1.png"]
    memory = Arrays(torch.zeros(2000, 1), torch.zeros(2000))
    numbers = Subject("test", memory)
    assert (numbers.sample(1234), numbers.label(0), numbers.labels) == ("test sample 1,234", "", None)
    memory.names = lambda: ["first"] * 2000  # type: ignore[attr-defined]
    assert Subject("test", memory).sample(0) == "test first"


def test_how_many_were_read() -> None:
    samples = Arrays(torch.zeros(2000, 1), torch.zeros(2000))
    checks = [SampleCheck(number, error="x" * (number == 3)) for number in range(5)]
    assert Subject("train", samples, checks).read == "4 of 2,000"
    assert Subject("train", samples, [SampleCheck(number) for number in range(2000)]).read == "all 2,000"
    assert [check.index for check in Subject("train", samples, checks).good] == [0, 1, 2, 4]

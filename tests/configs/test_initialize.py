"""The section `initialize`: which weights a library knows by a name, and that files are made absolute."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.initialize import Initialize, is_named
from drumbeat.configs.load import load, plain
from tests.tiny import write_config


@pytest.mark.parametrize(("weights", "named"), [
    ("ResNet50_Weights.IMAGENET1K_V2", True), ("hf://timm/resnet18.a1_in1k", True), ("w.pth", False),
    ("runs/tiny/latest", False), ("20260101-000000-abcde", False), ("My_Weights.pth", False),
])
def test_names_of_libraries(weights: str, named: bool) -> None:
    assert is_named(weights) is named


def test_a_relative_file_stands_absolute_and_a_config_without_the_section_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the code that is older than the section can read the config of a run without it."""
    monkeypatch.chdir(tmp_path)
    config = load(write_config(tmp_path), ["initialize.weights=w.pth", "initialize.rename={a: b}"]).config
    assert config.initialize == Initialize(weights=f"{tmp_path}/w.pth", rename={"a": "b"})
    assert plain(config)["initialize"]["only"] == []
    assert "initialize" not in plain(load(write_config(tmp_path)).config)

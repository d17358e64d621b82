"""Config files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.configs.small import BASE, Write


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes base.yaml, and config.yaml on top of it; the current folder is theirs."""
    monkeypatch.chdir(tmp_path)

    def write(text: str = "", base: str = BASE) -> Path:
        (tmp_path / "base.yaml").write_text(base)
        (tmp_path / "config.yaml").write_text(f"base: base.yaml\n{text}")
        return tmp_path / "config.yaml"

    return write

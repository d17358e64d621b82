"""Folders with code."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.plan.git import git


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A git tree with one commit."""
    folder = tmp_path / "lab"
    folder.mkdir()
    git(folder, "init", "--quiet")
    for name, text in {"nets.py": "WIDTH = 1\n", "gone.py": "", ".gitignore": "*.bin\n/private/\n"}.items():
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "one")
    return folder

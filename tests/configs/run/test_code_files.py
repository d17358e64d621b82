"""Which files of two copies of the code differ."""

from __future__ import annotations

import os
from pathlib import Path

from drumbeat.configs.run.code_files import differing_files, files_of


def copy(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        file = folder / "lab" / f"{name}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def test_files_that_differ_or_that_one_has_alone(tmp_path: Path) -> None:
    one = copy(tmp_path / "a", nets="one", same="x", old="gone")
    other = copy(tmp_path / "b", nets="two", same="x", new="more text")
    assert differing_files(one, other) == ["lab/nets.py", "lab/new.py", "lab/old.py"]
    assert differing_files(one, one) == []


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A pipe in the copy of somebody else's code would never end."""
    code = copy(tmp_path, nets="x")
    os.mkfifo(code / "lab" / "pipe.py")
    (code / "lab" / "link.py").symlink_to("/etc/passwd")
    (code / "snapshot.json").write_text("{}")
    assert [*files_of(code)] == ["lab/nets.py"]
    assert differing_files(code, code) == []

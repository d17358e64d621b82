"""How the copies of the code of two runs differ."""

from __future__ import annotations

import os
from pathlib import Path

from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.comparison import code
from drumbeat.trainers.comparison.code import code_difference


def run_with(folder: Path, files: dict[str, bytes], commit: str = "") -> RunDir:
    run = RunDir(folder)
    for name, content in files.items():
        file = run.path / "code" / "lab" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    tree = CodeTree(name="lab", folder="/lab", commit=commit, changed_files=2 if commit else 0)
    CodeSnapshot(trees=(tree,), home="", folder="lab").write(run.path / "code" / "snapshot.json")
    return run


def test_files_that_differ_are_named_and_shown(tmp_path: Path) -> None:
    first = run_with(tmp_path / "a", {"nets.py": b"one\ntwo\n", "same.py": b"x", "old.py": b"gone\n"}, "0123456789")
    second = run_with(tmp_path / "b", {"nets.py": b"one\n2\n", "same.py": b"x", "big.bin": b"0" * (code.MAX_BYTES + 1)})
    found = code_difference(first, second)
    assert (found.first, found.second) == ("lab at 0123456 with 2 changed files", "lab at no commit")
    assert found.files == ["lab/big.bin", "lab/nets.py", "lab/old.py"]
    assert found.diff.splitlines() == [
        "lab/big.bin differs", "--- A/lab/nets.py", "+++ B/lab/nets.py", "@@ -1,2 +1,2 @@", " one", "-two", "+2",
        "--- A/lab/old.py", "+++ /dev/null", "@@ -1 +0,0 @@", "-gone"]
    assert code_difference(first, first).files == []


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    """A pipe in the copy of somebody else's code would never end."""
    runs = [run_with(tmp_path / name, {"nets.py": b"x"}) for name in "ab"]
    for run in runs:
        os.mkfifo(run.path / "code" / "lab" / "pipe.py")
        (run.path / "code" / "lab" / "link.py").symlink_to("/etc/passwd")
    assert code_difference(*runs).files == []


def test_without_a_copy_nothing_is_known(tmp_path: Path) -> None:
    found = code_difference(run_with(tmp_path / "a", {"nets.py": b""}), RunDir(tmp_path / "b"))
    assert (found.first, found.second, found.files) == ("lab at no commit", "no copy", ())

"""A full file system over a folder: only for the process that mounts it and its descendants."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.launch.drill.full_disk import full_disk
from tests.runs import AS_ANOTHER

PROGRAM = """
import errno, subprocess, sys
from pathlib import Path
from drumbeat.launch.drill.full_disk import full_disk, own_mounts
folder = Path(sys.argv[1])
AS_ANOTHER
own_mounts()
try:
    with full_disk(folder):
        print(subprocess.run(["ls", folder], capture_output=True, text=True).stdout.split())
        try:
            (folder / "more").write_bytes(bytes(4096))
        except OSError as error:
            print(errno.errorcode[error.errno])
        print("full", flush=True)
        sys.stdin.readline()
    print([path.name for path in folder.iterdir()])
except PermissionError as error:
    print(error)
"""


def start(folder: Path, program: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=ROOT, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)


def test_it_is_full_hides_the_files_and_goes_without_a_trace(tmp_path: Path) -> None:
    """Other processes see the folder as it is, also while it is full."""
    (tmp_path / "old").write_text("old")
    with start(tmp_path, PROGRAM.replace("AS_ANOTHER", "")) as drill:
        assert drill.stdout is not None
        lines = [drill.stdout.readline().strip()]
        if "not permitted" in lines[0]:
            pytest.skip("this process may not mount file systems")
        while lines[-1] != "full":
            lines.append(drill.stdout.readline().strip())
        assert [path.name for path in tmp_path.iterdir()] == ["old"]
        assert drill.communicate("\n")[0] == "['old']\n"
    assert lines == ["['full']", "ENOSPC", "full"]


def test_without_root_it_says_why_not(tmp_path: Path) -> None:
    with start(tmp_path, PROGRAM.replace("AS_ANOTHER", AS_ANOTHER)) as drill:
        assert drill.communicate()[0] == "unshare: Operation not permitted\n"


def test_a_process_that_may_not_mount_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="has not begun"), full_disk(tmp_path):
        pass

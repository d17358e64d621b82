"""The folder in which the code of the pages is run: that of a lab with its own model, data and config, and one trained
run of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.processes import processes_of
from drumbeat.launch.runs.find import all_runs
from tests.docs.blocks import blocks
from tests.docs.warm import write_programs

OWN_PIECES = ROOT / "docs" / "your_own_pieces.md"
TRAINED = "drumbeat run rings.yaml --procs 2 --no-preflight"


class Lab:
    """A folder to type commands in."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.pristine = folder.with_name("pristine")
        self.environ = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "80",
                        "HOME": str(folder), "PYTHONPATH": f"{ROOT}/src", "TERM": "dumb", "USER": "me"}

    def type(self, command: str) -> tuple[int, str]:
        """Runs a command in bash; its exit code, and all that it printed. What a run that has ended leaves behind for a
        moment is gone by then, as it is when a person types the next command."""
        while any((view := View.read(run)).ended and processes_of(view) for run in all_runs(self.folder / "runs")):
            time.sleep(0.05)
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], cwd=self.folder, env=self.environ, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
        return done.returncode, done.stdout.replace(str(Path(sys.executable).with_name("drumbeat")), "drumbeat")

    def restore(self) -> None:
        """Has the folder as it was before a page was run in it; at the same place, which runs have noted down."""
        if self.folder.exists():
            shutil.rmtree(self.folder)
        shutil.copytree(self.pristine, self.folder, symlinks=True)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a `python` and a `drumbeat` that start at once."""
    folder = tmp_path_factory.mktemp("bin")
    write_programs(folder)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, programs: Path) -> Lab:
    """The lab of `docs/your_own_pieces.md` beside a clone's folders, in which `TRAINED` was typed."""
    folder = tmp_path_factory.mktemp("lab") / "lab"
    for block in blocks(OWN_PIECES):
        if block.title:
            (folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.title).write_text(block.text)
    for name in ("launch", "configs", "Makefile", "README.md", "pyproject.toml"):
        (folder / name).symlink_to(ROOT / name)
    lab = Lab(folder, programs)
    code, printed = lab.type(TRAINED)
    assert code == 0, printed
    shutil.copytree(folder, lab.pristine, symlinks=True)
    return lab


@pytest.fixture
def lab(trained: Lab) -> Lab:
    """The folder as it is before anything was typed but `TRAINED`."""
    trained.restore()
    return trained

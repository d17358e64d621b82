"""Lists on the pages that people write are complete and true: files and states of a run, exit codes, attacks."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

from drumbeat.configs.errors import UserError
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.records import State
from drumbeat.launch.node.handover import CONTINUE
from drumbeat.launch.runs.attach import EXIT_CODES
from drumbeat.launch.runs.find import find_run
from tests.docs.conftest import Lab

DOCS = ROOT / "docs"


def first_column(page: Path) -> set[str]:
    """What is set as code, or is a number, in the first column of the page's tables."""
    cells = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| ")]
    return {word for cell in cells for word in re.findall(r"`([^`]+)`|^ (\d+) $", cell) for word in word if word}


def test_every_state_of_a_run_is_explained() -> None:
    assert set(get_args(State)) - first_column(DOCS / "run_folder.md") == set()


def test_every_exit_code_is_explained() -> None:
    codes = {0, 1, UserError.exit_code, *EXIT_CODES.values()}
    text = (DOCS / "troubleshooting.md").read_text()
    assert {str(code) for code in codes} - first_column(DOCS / "troubleshooting.md") == set()
    assert f"with {CONTINUE} if another job" in " ".join(text.split())


def test_every_attack_names_its_tests_and_they_exist() -> None:
    text = (DOCS / "security.md").read_text().partition("## Attacks and faults")[2]
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row[3]) for row in rows]
    assert [row[0] for row, tests in zip(rows, named, strict=True) if not tests] == []
    assert [f"{file}::{test}" for file, test in chain.from_iterable(named)
            if not re.search(rf"^def {test}\(", (ROOT / file).read_text(), re.MULTILINE)] == []


@pytest.mark.slow
@pytest.mark.xdist_group("docs")
def test_every_file_of_a_run_is_named(lab: Lab) -> None:
    run = find_run("rings", lab.folder / "runs").path
    named = [pattern(name) for name in first_column(DOCS / "run_folder.md")]
    files = [str(file.relative_to(run)) for file in run.rglob("*") if not file.is_dir() or file.is_symlink()]
    assert [file for file in files if not any(one.match(file) for one in named)] == []


def pattern(name: str) -> re.Pattern[str]:
    """`attempts/K/rankR.log` as a pattern; a folder stands for all that is in it."""
    parts = re.split(r"(?<=attempts/)K|(?<=step-)N|(?<=node)N|(?<=rank)R", name.removesuffix("..."))
    return re.compile(r"\d+".join(map(re.escape, parts)) + ("" if name.endswith(("/", "...")) else "$"))

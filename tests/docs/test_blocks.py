"""Every code block of the README and of the pages does what the page says; see CONTRIBUTING.md, "Documentation"."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from drumbeat.configs.load import load, load_site
from drumbeat.configs.schema import Config
from drumbeat.configs.site import Site
from drumbeat.launch.commands.main import parse
from tests.docs.blocks import DRY_RUN, LANGUAGES, NOT_RUN, PAGES, Block, blocks
from tests.docs.conftest import Lab

ALL = [block for page in PAGES for block in blocks(page)]
TO_RUN = [page for page in PAGES if page.parent.name != "configs" and any(block.is_run for block in blocks(page))]
BASE = "rings.yaml"
"""What a piece of a config is laid over, to be a whole one."""
VARYING = (re.compile(r"\b\d{8}-\d{6}-\w+\b"), re.compile(r"\d+([.,:]\d+)*"), re.compile(r"\s+"))
"""What differs from one run to the next: an id, a number, and the blanks around them."""


def test_every_block_has_a_language_and_every_tag_its_reason() -> None:
    """A block is run, or says by a tag of the table why it is not."""
    assert [str(block) for block in ALL if block.language not in LANGUAGES] == []
    tags = {block.tag for block in ALL} - {"", DRY_RUN}
    assert tags - NOT_RUN.keys() == set()
    assert [str(block) for block in ALL if block.language == "text" and block.is_run] == []


@pytest.mark.parametrize("block", ALL, ids=str)
def test_a_block_is_parsed(block: Block) -> None:
    """Whether it is run or not, it is Python, YAML, JSON, or commands with options that exist."""
    if block.language == "python":
        ast.parse(block.text)
    elif block.language == "yaml":
        yaml.safe_load(block.text)
    elif block.language == "json":
        json.loads(block.text)
    elif block.language in ("console", "bash"):
        for argv in block.commands():
            if not {"--help", "--version"} & set(argv):
                parse(argv)


@pytest.mark.slow
@pytest.mark.xdist_group("docs")
@pytest.mark.parametrize("page", TO_RUN, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    for number, block in enumerate(blocks(page)):
        if block.title:
            (lab.folder / block.title).parent.mkdir(parents=True, exist_ok=True)
            (lab.folder / block.title).write_text(block.text)
        if not block.is_run:
            continue
        if block.language in ("console", "bash"):
            run_commands(block, lab)
        elif block.language == "python":
            file = block.title or f".block{number}.py"
            (lab.folder / file).write_text(block.text)
            finish(block, lab, f"python {file}")
        elif block.language == "yaml":
            check_yaml(block, lab.folder)
        else:
            json.loads(block.text)


def run_commands(block: Block, lab: Lab) -> None:
    """Types each command, and finds what it is said to print, line by line, among what it prints."""
    for command, shown in block.steps():
        if "\n" in command and block.title:
            finish(block, lab, f"bash -n {block.title}")
        else:
            missing = lacking(shown, finish(block, lab, command, refused=any("error" in line for line in shown)), lab)
            assert not missing, f"{block}: {command}\ndoes not print, in this order,\n{missing[0]}\nbut\n{missing[1]}"


def finish(block: Block, lab: Lab, command: str, refused: bool = False) -> str:
    """What a command prints. Fails unless it ends well, or, where the page says so, with an error."""
    code, printed = lab.type(command)
    assert (code != 0) == refused, f"{block}: {command}\nexit code {code}\n{printed}"
    return printed


def lacking(shown: list[str], printed: str, lab: Lab) -> tuple[str, str] | None:
    """The first line that is not printed behind those before it, and what is printed; None where all are. `...` in a
    line stands for anything."""
    rest = iter(map(plain, printed.replace(str(lab.folder), "/home/me/lab").splitlines()))
    for line in shown:
        pattern = re.compile(".*".join(map(re.escape, plain(line).split("..."))))
        if not any(map(pattern.fullmatch, rest)):
            return line, printed
    return None


def plain(line: str) -> str:
    """A line without what differs from one run to the next."""
    for pattern, instead in zip(VARYING, ("ID", "0", " "), strict=True):
        line = pattern.sub(instead, line)
    return line.strip()


def check_yaml(block: Block, folder: Path) -> None:
    """A cluster's profile, a config, or a piece of one, is read with all its keys and values."""
    keys = yaml.safe_load(block.text).keys()
    if keys <= {field.name for field in dataclasses.fields(Site)}:
        file = folder / (block.title or "site.yaml")
        file.write_text(block.text)
        load_site(str(file))
        return
    known = {"base", "sweep", *(field.name for field in dataclasses.fields(Config))}
    assert keys <= known, f"{block}: no config and no profile"
    file = folder / (block.title or "piece.yaml")
    whole = "phases" in keys or "base" in keys
    file.write_text(block.text if whole or block.title else f"base: {BASE}\n{block.text}")
    load(file)

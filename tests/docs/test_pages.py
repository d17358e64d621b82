"""What the pages say is so: every shipped config has its page, every link leads somewhere, the site can be built."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import tables
from docs.pages import FOLDER, header, pages
from docs.site import on_page_markdown
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.find import find_run
from tests.docs.blocks import OPENING, PAGES, blocks
from tests.docs.conftest import OWN_PIECES, Lab

LINES = 20
LINK = re.compile(r"!?\[[^\]]*\]\(([^)#\s]*)(?:#([^)]*))?\)")


def test_the_pages_of_the_configs_are_what_the_files_say() -> None:
    """Else: python -m docs.pages"""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.md")} == pages()


@pytest.mark.parametrize("page", list(tables.pages()), ids=lambda page: page.stem)
def test_the_tables_of_a_page_are_what_the_code_says(page: Path) -> None:
    """All keys, verdicts, refusals, error messages, files and modules. Else: python -m docs.pages"""
    assert page.read_text() == tables.filled(page.read_text())


def test_every_table_is_on_a_page() -> None:
    assert {name for page in tables.pages() for _, name, _ in tables.SECTION.findall(page.read_text())} == set(
        tables.TABLES)


def test_a_header_is_taken_apart_by_its_labels() -> None:
    text = "# One\n# sentence.\n#\n# Reproduces   this, and\n#              that.\n# Own images   `x`\n\nname: a\n"
    assert header(text) == ("One sentence.", [("Reproduces", ["this, and", "that."]), ("Own images", ["`x`"])])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Files exist, and so do the headings that an anchor names."""
    broken = []
    for path, anchor in LINK.findall(prose(page)):
        target = (page.parent / path).resolve() if path else page
        if ":" not in path and not (target.exists() and (not anchor or anchor in anchors(target))):
            broken.append(f"{path}#{anchor}")
    assert broken == []


def prose(page: Path) -> str:
    """The page without its code."""
    lines, fenced = [], False
    for line in page.read_text().splitlines():
        fenced ^= bool(OPENING.fullmatch(line))
        lines.append("" if fenced else re.sub("`[^`]*`", "", line))
    return "\n".join(lines)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as MkDocs and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


def test_the_site_builds(tmp_path: Path) -> None:
    """In strict mode, and without a request to any other host."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fetched = re.compile(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//[^"]+"')
    assert [found for page in tmp_path.rglob("*.html") for found in fetched.findall(page.read_text())] == []


class Page:
    """As MkDocs hands it to a hook."""

    class file:  # noqa: N801
        src_uri = "configs/index.md"


def test_the_site_has_neither_links_to_files_outside_of_it_nor_tags() -> None:
    text = "[a](../launching.md#x), [b](../../configs/schema.py) and [c](https://pytorch.org)"
    assert on_page_markdown(text, page=Page) == "[a](../launching.md#x), b and [c](https://pytorch.org)"
    assert on_page_markdown('```bash title="a" test="long"\nx\n```', page=Page) == '```bash title="a"\nx\n```'


def test_each_piece_of_your_own_is_short() -> None:
    pieces = {block.title: block.text for block in blocks(OWN_PIECES) if block.title}
    modules = ("nets", "sets", "transforms", "losses", "tasks", "optim")
    assert list(pieces) == [*(f"my_lab/{name}.py" for name in modules),
                            "rings.yaml"]
    assert all(len(list(filter(None, text.splitlines()))) < LINES for text in pieces.values())


@pytest.mark.slow
@pytest.mark.xdist_group("docs")
def test_your_own_pieces_train(lab: Lab) -> None:
    """As the page says. Chance is 0.5; a model that always says `inner` has accuracy 0.8."""
    run = find_run("rings", lab.folder / "runs")
    assert Result.require(run.result).best["balanced"] > 0.9
    assert View.read(run).state == "finished"

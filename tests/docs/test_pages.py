"""What the pages say is so: their code trains, every shipped config has its page, every link leads somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.pages import FOLDER, header, pages
from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.records import Result
from drumbeat.launch.commands.main import main
from tests.tiny import drumbeat, latest

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
YOUR_OWN = ROOT / "docs" / "your_own.md"
LINES = 20


def blocks() -> dict[str, str]:
    """The files on the page about what is your own, by name."""
    found = re.findall(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```$", YOUR_OWN.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def test_the_pages_of_the_configs_are_what_the_files_say() -> None:
    """Else: python -m docs.pages"""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.md")} == pages()


def test_a_header_is_taken_apart_by_its_labels() -> None:
    text = "# One\n# sentence.\n#\n# Reproduces   this, and\n#              that.\n# Own images   `x`\n\nname: a\n"
    assert header(text) == ("One sentence.", [("Reproduces", ["this, and", "that."]), ("Own images", ["`x`"])])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


def test_each_piece_of_your_own_is_short() -> None:
    assert list(blocks()) == ["my_lab/nets.py", "my_lab/sets.py", "my_lab/tasks.py", "rings.yaml"]
    assert all(len(list(filter(None, text.splitlines()))) < LINES for text in blocks().values())


@pytest.mark.slow
def test_your_own_pieces_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                               capfd: pytest.CaptureFixture[str]) -> None:
    """As the page says, in a folder of their own. Chance is 0.5; a model that always says `inner` has accuracy 0.8."""
    for name, text in blocks().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    drumbeat(tmp_path, "rings.yaml", "--debug", "phases.train.epochs=1")
    best = Result.require(latest(tmp_path, "rings").result).best
    assert best["balanced"] > 0.9
    monkeypatch.chdir(tmp_path)
    assert main(["report", "rings"]) == 0
    assert "best balanced" in (latest(tmp_path, "rings").path / "report.html").read_text()

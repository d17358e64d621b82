"""A console with colours and progress, in which no text controls the terminal."""

from __future__ import annotations

import io

import pytest
from rich.progress import Progress, TextColumn
from rich.text import Text

from drumbeat.launch.runs.console import PlainConsole

HOSTILE = "\x1b]0;title\x1b\\\x9b2J[/red]\u202e"
SHOWN = "\\x1b]0;title\\x1b\\\\x9b2J[/red]\\u202e"


def test_colours_stay_and_texts_are_text(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    console = PlainConsole(force_terminal=True, color_system="standard", width=200)
    console.print(Text(HOSTILE, style="green"))
    console.print(HOSTILE)
    assert shown.getvalue() == f"\x1b[32m{SHOWN}\x1b[0m\n{SHOWN}\n"


def test_a_progress_bar_is_drawn_over_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stdout", shown)
    console = PlainConsole(force_terminal=True, color_system="standard", width=200)
    with Progress(TextColumn("{task.description}", markup=False), console=console, transient=True) as progress:
        progress.add_task(HOSTILE)
        progress.refresh()
        print(f"printed {HOSTILE}")
    text = shown.getvalue()
    assert "\\x1b]0;title\\x1b" in text
    assert "\x1b[2K" in text  # erases the line
    assert "\x1b]" not in text
    assert "\x9b" not in text

"""Output that cannot control the terminal."""

from __future__ import annotations

import io
import sys

import pytest

from drumbeat.configs.terminal import TextOnly, any_output, text_only, visible

HOSTILE = "cat\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J\x9b31m\u202etac\u2066\r"
"""A class that writes to the clipboard, clears the screen, colours and reverses the text."""
SHOWN = "cat\\x1b]52;c;cm0gLXJmIH4=\\x07\\x1b[2J\\x9b31m\\u202etac\\u2066\\x0d"


def test_control_characters_are_shown() -> None:
    assert visible(HOSTILE) == SHOWN
    assert visible("Grüße\t1\n\N{GRINNING FACE}") == "Grüße\t1\n\N{GRINNING FACE}"
    assert visible("caf\udce9.png") == "caf\\xe9.png"


def test_what_is_printed_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    with text_only(), text_only():
        print(HOSTILE)
        sys.stderr.writelines([HOSTILE, "\n"])
        with any_output():
            print("\x1b[1m")
    print("\x1b[0m")
    assert capsys.readouterr() == (f"{SHOWN}\n\x1b[1m\n\x1b[0m\n", f"{SHOWN}\n")


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "\\u2026\\xe9\\xe9"), ("iso-8859-1", "\\u2026é\\xe9"),
                                                 ("utf-8", "…é\\xe9")])
def test_any_text_can_be_printed_in_any_locale(encoding: str, shown: str) -> None:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding)
    print("…é\udce9", file=TextOnly(stream), end="", flush=True)
    print("…", file=TextOnly(stream).rich_proxied_file, end="", flush=True)
    assert written.getvalue().decode(encoding).startswith(shown)


def test_rich_keeps_its_colours() -> None:
    from rich.console import Console

    shown = io.StringIO()
    stream = TextOnly(shown)
    before, sys.stdout = sys.stdout, stream  # type: ignore[assignment]
    try:
        Console(force_terminal=True, color_system="standard").print("[green]ok[/]")
    finally:
        sys.stdout = before
    assert shown.getvalue() == "\x1b[32mok\x1b[0m\n"


def test_a_stream_that_is_closed_takes_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has None in its place."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with text_only():
        print("text", flush=True)
        print("text", file=sys.stderr)
        assert not sys.stdout.isatty()
    assert (sys.stdout, sys.stderr) == (None, None)

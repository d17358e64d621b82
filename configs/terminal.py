"""Output that cannot control the terminal.

A class name, a log line or an error message may contain escape sequences that clear the screen, change its title or
write to the clipboard, and characters that reverse the direction of the text. Every command prints through `TextOnly`,
which shows such characters as text, for example \\x1b. The colours and progress bars of rich reach the terminal through
`rich_proxied_file`, under which rich looks for the stream behind a wrapper.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7f, 0xa0)) if chr(code) not in "\n\t"}
"""C0 and C1 control characters, except for a line break and a tab."""
DIRECTIONS = {code: f"\\u{code:04x}" for code in (*range(0x202a, 0x202f), *range(0x2066, 0x206a))}
"""Characters that change the direction of the text after them (Unicode Standard Annex 9)."""
NOT_UTF8 = {0xdc00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
"""Bytes of file names that are not UTF-8, as `os.fsdecode` returns them."""
SHOWN = CONTROLS | DIRECTIONS | NOT_UTF8
"""What is printed instead of each of these characters."""


def visible(text: str) -> str:
    """The text with control characters shown as \\x1b or \\u202e."""
    return text.translate(SHOWN)


class AnyText:
    """A text stream that never raises UnicodeEncodeError: characters that its encoding lacks are shown as \\u2026. The
    stream is None if the process was started without it, as by `drumbeat ls >&-`."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.stream is not None:
            encoding = getattr(self.stream, "encoding", None) or "utf-8"
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        if self.stream is not None:
            self.stream.flush()

    def isatty(self) -> bool:
        return self.stream is not None and bool(self.stream.isatty())

    def writelines(self, lines: Iterator[str]) -> None:
        self.write("".join(lines))


class TextOnly(AnyText):
    """A text stream that shows control characters as text."""

    @property
    def rich_proxied_file(self) -> AnyText:
        """The stream for rich, which writes its own escape sequences."""
        return AnyText(self.stream)

    def write(self, text: str) -> int:
        super().write(visible(text))
        return len(text)


def print_text_only() -> None:
    """From now on, standard output and error of this process show control characters as text."""
    sys.stdout, sys.stderr = TextOnly(_inner(sys.stdout)), TextOnly(_inner(sys.stderr))  # type: ignore[assignment]


@contextmanager
def text_only() -> Iterator[None]:
    """Inside, standard output and error show control characters as text."""
    before = sys.stdout, sys.stderr
    print_text_only()
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


@contextmanager
def any_output() -> Iterator[None]:
    """Inside, standard output and error are those that `text_only` has replaced: for the user's own code."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_inner, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _inner(stream: Any) -> Any:
    return stream.stream if isinstance(stream, TextOnly) else stream

"""Parts of a self-contained HTML page: one file without scripts, which loads nothing.

The HTML is in the templates report.html and parts.html. Jinja2 escapes all text except `Markup`, the rendered parts.
"""

from __future__ import annotations

import base64
import io
import math
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

LARGE = 150_000
"""Images of at least this many bytes are converted to JPEG if that is smaller."""

MAX_IMAGE = 32 * 2**20
"""Bytes of the largest image that is shown."""
MAX_PIXELS = 32_000_000
"""Pixels of the largest image that is decoded: 128 MB of memory."""

YAML_LINE = re.compile(r"([ -]*)((?:[\w.]+(?=:(?: |$)))?)(.*?)((?:(?<![^ ])#.*)?)")
"""Indentation, key, the rest and a comment."""


@dataclass(frozen=True)
class Figure:
    """A chart or an image with its title; '' if the image contains its own."""

    title: str
    body: Markup
    keys: Mapping[str, int] = field(default_factory=dict)
    """The numbers of its curves' colours, by the name of the curve."""
    note: str = ""
    kind: str = ""
    """"wide" for the page's whole width, "plot" for a drawing on white, which a dark page inverts."""


@cache
def templates() -> Environment:
    """The templates beside this file."""
    return Environment(loader=FileSystemLoader(Path(__file__).parent, encoding="utf-8"), autoescape=True,
                       undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def page(title: str, body: Iterable[Markup]) -> str:
    """The whole document."""
    style = Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8"))
    return templates().get_template("report.html").render(title=title, style=style, body=body)


def _part(macro: str, *values: Any) -> Markup:
    return Markup(getattr(templates().get_template("parts.html").module, macro)(*values))


def head(id: str, name: str, *, state: str, colour: str, text: str, progress: float | None) -> Markup:  # noqa: A002
    """The top of the page: the run and its state; `progress` in percent, None for no bar."""
    return _part("head", id, name, state, colour, text, progress)


def footer(time: str, folder: Path) -> Markup:
    """When the page was written, and from which folder."""
    return _part("footer", time, str(folder))


def section(title: str, *parts: Markup) -> Markup:
    """A heading and its parts; nothing if all parts are empty."""
    shown = [part for part in parts if part]
    return _part("section", title, shown) if shown else Markup()


def subtitle(title: str) -> Markup:
    """A heading within a section."""
    return _part("subtitle", title)


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table of texts."""
    return _part("table", titles, list(rows))


def facts(rows: Iterable[tuple[str, str]]) -> Markup:
    """A table of names and values, without those that are empty."""
    shown = [(name, value) for name, value in rows if value]
    return _part("facts", shown) if shown else Markup()


def cards(rows: Iterable[tuple[str, str, str]]) -> Markup:
    """Cards with the most important numbers: label, value and note, in rows of about the same length on wide and on
    narrow windows."""
    shown = list(rows)
    wide, narrow = (math.ceil(len(shown) / max(1, math.ceil(len(shown) / most))) for most in (6, 4))
    return _part("cards", shown, wide, narrow) if shown else Markup()


def grid(figures: Iterable[Figure]) -> Markup:
    """Figures in rows of two if there is room (the last row has three if one would be left over); then the wide
    ones."""
    every = list(figures)
    wide = [one for one in every if one.kind == "wide"]
    narrow = [one for one in every if one.kind != "wide"]
    pairs = len(narrow) - 3 if len(narrow) > 1 and len(narrow) % 2 else len(narrow)
    rows = [("grid", narrow[:pairs]), ("grid thirds", narrow[pairs:]), ("grid", wide)]
    return _part("grid", [(kind, some) for kind, some in rows if some])


def fold(title: str, body: Markup, *, opened: bool = False) -> Markup:
    """A part that is hidden until the reader opens it."""
    return _part("fold", title, body, opened)


def listing(text: str) -> Markup:
    """Preformatted text."""
    return _part("listing", text)


def yaml(text: str) -> Markup:
    """YAML with highlighted keys and comments."""
    lines = [match.groups() for line in text.splitlines() if (match := YAML_LINE.fullmatch(line))]
    return _part("yaml", lines)


def unreadable(name: str) -> Markup:
    """A line in place of an image that cannot be shown."""
    return _part("unreadable", name)


def image(data: bytes, name: str) -> Markup:
    """A PNG or JPEG image inside the page; a large one as JPEG if that is smaller. A line of text in place of one that
    is neither, has too many pixels to decode, or is being written."""
    try:
        with warnings.catch_warnings(action="error"), Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as opened:
            kind, (width, height) = str(opened.format).lower(), opened.size
            if len(data) > MAX_IMAGE or width * height > MAX_PIXELS:
                return unreadable(name)
            whole = opened.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError):
        return unreadable(name)
    if len(data) > LARGE:
        buffer, ground = io.BytesIO(), Image.new("RGB", whole.size, "white")
        ground.paste(whole, mask=whole)
        ground.save(buffer, "JPEG", quality=88, optimize=True)
        if len(buffer.getvalue()) < len(data):
            kind, data = "jpeg", buffer.getvalue()
    return _part("image", name, width, height, f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}")

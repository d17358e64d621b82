"""Pieces of a self-contained HTML page: everything in one file, no script, nothing that is fetched."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from PIL import Image

LARGE = 150_000
"""Bytes from which a picture is sent as a JPEG, where that is smaller."""

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for the page: nothing."""


def page(title: str, body: Iterable[str]) -> str:
    """The whole document."""
    style = Path(__file__).with_name("report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
{"".join(body)}
</body>
</html>
"""


def section(title: str, *parts: str) -> str:
    """A heading and what stands below it; nothing where that is nothing."""
    body = "\n".join(filter(None, parts))
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>\n" if body else ""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts."""
    cells = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>\n" for row in rows)
    titles = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    return f'<div class="scroll"><table><tr>{titles}</tr>\n{cells}</table></div>'


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values, a line each."""
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>\n" for name, value in rows if value)
    return f'<table class="facts">{cells}</table>'


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """The numbers that matter most: name, value, and a word to it. In rows of about the same length, on a wide window
    and on a narrow one."""
    cells = [f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>\n"
             for name, value, note in rows]
    wide, narrow = (math.ceil(len(cells) / max(1, math.ceil(len(cells) / most))) for most in (6, 4))
    return f'<dl class="tiles" style="--wide: {wide}; --narrow: {narrow}">{"".join(cells)}</dl>' if cells else ""


def figure(title: str, body: str, keys: Mapping[str, int] | None = None, note: str = "", *, kind: str = "") -> str:
    """A chart or a picture under its title, where it has none of its own. `keys` are the numbers of its curves'
    colours; `kind` is "wide" for the page's whole width, "plot" for a drawing on white, which a dark page inverts.
    """
    named = "".join(f'<span class="key" style="--c: var(--c{colour})">{escape(key)}</span>'
                    for key, colour in (keys or {}).items())
    said = f"<span>{escape(note)}</span>" if note else ""
    caption = f"<figcaption><h3>{escape(title)}</h3>{named}{said}</figcaption>" if title else ""
    return f'<figure class="{kind}">{caption}{body}</figure>\n'


def grid(figures: Iterable[str]) -> str:
    """Figures side by side where there is room, two in a row, and the last three in one where the last would be alone;
    then the wide ones."""
    every = list(figures)
    wide = [one for one in every if one.startswith('<figure class="wide')]
    narrow = [one for one in every if one not in wide]
    pairs = len(narrow) - 3 if len(narrow) > 1 and len(narrow) % 2 else len(narrow)
    rows = [("grid", narrow[:pairs]), ("grid thirds", narrow[pairs:]), ("grid", wide)]
    return "".join(f'<div class="{kind}">{"".join(some)}</div>\n' for kind, some in rows if some)


def fold(title: str, body: str, *, opened: bool = False) -> str:
    """What is there for who wants it."""
    return f"<details{' open' * opened}><summary>{escape(title)}</summary><div>{body}</div></details>"


def listing(text: str) -> str:
    """Text as it stands."""
    return f"<pre>{escape(text)}</pre>"


def yaml(text: str) -> str:
    """YAML, its keys and comments told apart."""
    marked = re.sub(r"(?m)^([ -]*)([\w.]+)(?=:(?: |$))", r"\1<b>\2</b>", escape(text, quote=False))
    return "<pre>" + re.sub(r"(?m)(^ *| +)(#.*)$", r"\1<i>\2</i>", marked) + "</pre>"


def image(data: bytes, name: str) -> str:
    """An encoded image, inside the page; a large one as a JPEG where that is smaller. Words in place of one that cannot
    be read, perhaps because it is being written."""
    try:
        with Image.open(io.BytesIO(data)) as opened:
            kind, (width, height) = str(opened.format).lower(), opened.size
            whole = opened.convert("RGBA")
    except OSError:
        return f'<p class="faint">{escape(name)} cannot be read</p>'
    if len(data) > LARGE:
        buffer, ground = io.BytesIO(), Image.new("RGB", whole.size, "white")
        ground.paste(whole, mask=whole)
        ground.save(buffer, "JPEG", quality=88, optimize=True)
        if len(buffer.getvalue()) < len(data):
            kind, data = "jpeg", buffer.getvalue()
    source = base64.b64encode(data).decode("ascii")
    return (f'<img alt="{escape(name)}" width="{width}" height="{height}" '
            f'src="data:image/{kind};base64,{source}">')

"""Measures how a real browser, headless Chromium, displays a page."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest

LOOK = """
const frame = document.querySelector('iframe'), page = frame.contentDocument, root = page.documentElement;
const all = (what) => [...page.querySelectorAll(what)];
const box = (element) => element.getBoundingClientRect();
document.body.dataset.seen = JSON.stringify({
  width: root.scrollWidth, height: root.scrollHeight,
  ground: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
  ink: frame.contentWindow.getComputedStyle(page.body).color,
  images: all('img').map((image) => [image.alt, image.naturalWidth, box(image).width]),
  charts: all('svg').map((svg) => ({
    title: svg.closest('figure').querySelector('h3').textContent, left: box(svg).left, width: box(svg).width,
    lines: all('polyline').filter((line) => svg.contains(line)).map((line) => [line.getAttribute('class'),
      box(line).width, frame.contentWindow.getComputedStyle(line).stroke]),
    cut: [...svg.querySelectorAll('text')].filter((text) => box(text).left < box(svg).left - 0.5
      || box(text).right > box(svg).right + 0.5).map((text) => text.textContent),
  })),
  text: page.body.innerText,
});
"""


@cache
def program() -> str:
    """The path of Chromium. Without Chromium it skips the test, or fails it in CI."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "no Chromium on PATH; on Debian or Ubuntu: sudo apt install chromium")
    return str(found)


def run(folder: Path, *arguments: str) -> str:
    """Runs Chromium without network, with its own profile in `folder`. Returns its output."""
    done = subprocess.run(
        [program(), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
         f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", *arguments],
        capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def look(page: Path, folder: Path, *, width: int, dark: bool = False) -> dict[str, Any]:
    """The layout of a page in a window of `width` pixels. A second page shows it unchanged in a frame and measures it:
    `ground` and `ink` are the background and text colours, `cut` the labels that a chart's edge cuts off."""
    outer = folder / "look.html"
    outer.write_text(f'<body><iframe style="width: {width}px; height: 900px; border: 0" '
                     f'srcdoc="{html.escape(page.read_text())}"></iframe>'
                     f"<script>onload = () => {{ {LOOK} }}</script></body>")
    dom = run(folder, f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=5000",
              "--dump-dom", outer.as_uri())
    found = re.search(r'data-seen="([^"]*)"', dom)
    assert found, dom[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    return seen

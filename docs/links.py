"""A hook of MkDocs (mkdocs.yml): links to files of the repository that are no pages.

In the repository, `[configs/schema.py](../configs/schema.py)` leads to the file. The site holds the pages alone, so the
same words stand there without a link. A test (tests/docs/test_pages.py) checks that the files exist.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[(?P<words>[^]\[]+)\]\((?P<path>[^)#:]+)(#[^)]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text as the site has it."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        outside = posixpath.normpath(posixpath.join(folder, link["path"])).startswith("..")
        return link["words"] if outside else link[0]

    return LINK.sub(replace, markdown)

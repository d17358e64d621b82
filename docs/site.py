"""A hook of MkDocs (mkdocs.yml): what the site leaves out of the pages, as they are in the repository.

Links to files that are no pages: in the repository, `[configs/schema.py](../configs/schema.py)` leads to the file. The
site holds the pages alone, so the same words are there without a link; tests/docs/test_pages.py checks that the files
exist. And the tags that tell the tests what to do with a code block.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[(?P<words>[^]\[]+)\]\((?P<path>[^)#:]+)(#[^)]*)?\)")
TAG = re.compile(r'^(\s*```.*) test="[^"]*"', re.MULTILINE)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """The page's text as the site has it."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(link: re.Match[str]) -> str:
        outside = posixpath.normpath(posixpath.join(folder, link["path"])).startswith("..")
        return link["words"] if outside else link[0]

    return TAG.sub(r"\1", LINK.sub(replace, markdown))

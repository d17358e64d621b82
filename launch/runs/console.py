"""A console of rich whose texts cannot control the terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from drumbeat.configs.terminal import AnyText, visible


class PlainConsole(Console):
    """Standard output, with colours and progress bars. Control characters in texts are shown as text, and nothing in
    them is markup."""

    def __init__(self, **options: Any) -> None:
        stream: Any = getattr(sys.stdout, "rich_proxied_file", AnyText(sys.stdout))
        super().__init__(file=stream, highlight=False, soft_wrap=True, markup=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))

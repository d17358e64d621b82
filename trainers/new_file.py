"""A file that replaces another as a whole."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path in the same folder, for the new content of `file`, which it replaces at the end. After an error, `file` is
    as before. Nobody can predict the path, so a link of another user is not followed; nor is one at `file`."""
    temporary = file.with_name(f".{secrets.token_hex(8)}.{file.name}")
    try:
        yield temporary
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)

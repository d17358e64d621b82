"""Only regular files are read, and lines are bounded."""

from __future__ import annotations

import io
import os
import socket
from pathlib import Path

import pytest

from drumbeat.data.regular import kind_of, lines_of, open_regular


def test_what_is_not_a_regular_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "nowhere").symlink_to("missing")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    for name, kind in (("pipe", "a pipe"), ("zero", "a device"), (".", "a folder")):
        assert kind_of(tmp_path / name) == kind
        with pytest.raises(ValueError, match=f"it is {kind}, and not a regular file"):
            open_regular(tmp_path / name)
    assert kind_of(tmp_path / "socket") == "a socket"
    assert kind_of(tmp_path / "nowhere") == "a link that leads nowhere"
    (tmp_path / "file").write_bytes(b"x")
    with open_regular(tmp_path / "file") as file:
        assert file.read() == b"x"


def test_a_line_has_a_bound() -> None:
    assert list(lines_of(io.BytesIO(b"a\n\nb"), 2)) == [b"a\n", b"\n", b"b"]
    with pytest.raises(ValueError, match="line 2 is longer"):
        list(lines_of(io.BytesIO(b"a\nabc"), 2))

"""Starts `drumbeat` without importing torch again: a process that has imported it is forked in place of a new Python.

    run([sys.executable, "-m", "drumbeat", "ls"], cwd=folder, capture_output=True, text=True)      as `subprocess.run`

Importing torch takes two thirds of the time of a small run: in the command, in the fork server, in whatever checks
model and data. Here one process for each pytest worker imports it (tests/new_python.py), and a command is a fork of
that process, made like a new Python. The tree of processes below the command is the real one, with its sessions,
signals and command lines.

Some tests start real Pythons: those about how processes start, what they import and what variables do to Python; and
some that prove that a killed run computes the same bits, because forks have the same seed of the hashes of texts.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests.new_python import ROOM, warm

run_for_real = subprocess.run


class Server:
    """The process that is forked, as the pytest worker sees it."""

    def __init__(self) -> None:
        self.socket, theirs = socket.socketpair()
        self.process = subprocess.Popen([sys.executable, "-m", "tests.new_python", str(theirs.fileno()), " " * ROOM],
                                        pass_fds=[theirs.fileno()], cwd=Path(__file__).parent.parent)
        theirs.close()
        self.lock = threading.Lock()

    def call(self, order: dict[str, Any], files: Sequence[int]) -> int:
        """Has the server fork a command, with these files as its 0, 1 and 2, and waits for its exit code."""
        text = json.dumps(order).encode()
        with self.lock:
            socket.send_fds(self.socket, [len(text).to_bytes(8, "big")], files)
            self.socket.sendall(text)
            return int(self.socket.recv(16))


def run_where_warm(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """In the place of `subprocess.run`: other programs than Drumbeat's are started."""
    python, *words = map(str, command)
    forked = python == sys.executable and warm(words)
    return run(command, **options) if forked else run_for_real(command, **options)


_servers: list[Server] = []


def run(command: Sequence[str], *, input: str | None = None, capture_output: bool = False,  # noqa: A002
        stdout: int | None = None, stderr: int | None = None, text: bool = False, check: bool = False,
        cwd: Path | None = None, env: dict[str, str] | None = None, process_group: int | None = None
        ) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` of a Python, for what it is asked in these tests: to run a module, a script or a text."""
    words = [str(word) for word in command]
    if not _servers:
        _servers.append(Server())
    with TemporaryFile() as inputs, TemporaryFile() as outputs, TemporaryFile() as errors:
        inputs.write((input or "").encode())
        inputs.seek(0)
        out = outputs.fileno() if capture_output or stdout == subprocess.PIPE else 1
        err = errors.fileno() if capture_output or stderr == subprocess.PIPE else 2
        code = _servers[0].call({"words": words[1:], "folder": str(cwd or Path.cwd()),
                                 "environment": dict(os.environ if env is None else env)}, [inputs.fileno(), out, err])
        captured = []
        for file, number in ((outputs, out), (errors, err)):
            file.seek(0)
            captured.append(file.read().decode() if number > 2 else None)
    if check and code:
        raise subprocess.CalledProcessError(code, words, *captured)
    return subprocess.CompletedProcess(words, code, *captured)

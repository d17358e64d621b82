"""Starts `drumbeat` without importing torch again: a process that has imported it is forked in place of a new Python.

    run_python([sys.executable, "-m", "drumbeat", "ls"], cwd=folder, capture_output=True)      as `subprocess.run`

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
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests.new_python import ROOM, warm

run_for_real = subprocess.run
ROOT = Path(__file__).parent.parent
_servers: list[subprocess.Popen[bytes]] = []


@cache
def server() -> str:
    """The address of the process that is forked, which ends with this one."""
    address = f"drumbeat-tests-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"\0{address}")
        listener.listen(16)
        number = listener.fileno()
        _servers.append(subprocess.Popen([sys.executable, "-m", "tests.new_python", str(number), " " * ROOM], cwd=ROOT,
                                         stdin=subprocess.PIPE, pass_fds=[number]))
    return address


def call(address: str, arguments: Sequence[str], files: Sequence[int], folder: str,
         environment: Mapping[str, str]) -> int:
    """Runs `python ARGUMENTS` in a fork of the process at `address`, with these files as 0, 1 and 2. Returns its exit
    code."""
    order = json.dumps({"arguments": list(arguments), "folder": folder, "environment": dict(environment)}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(f"\0{address}")
        socket.send_fds(connection, [len(order).to_bytes(8, "big")], files)
        connection.sendall(order)
        return int(connection.recv(16))


def run_where_warm(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[Any]:
    """Takes the place of `subprocess.run`: forks for commands of Drumbeat, and starts other programs as usual."""
    python, *arguments = map(str, command)
    forked = python == sys.executable and warm(arguments)
    return run_python(command, **options) if forked else run_for_real(command, **options)


def run_python(command: Sequence[str], *, input: str | None = None, capture_output: bool = False,  # noqa: A002
               stdout: int | None = None, stderr: int | None = None, text: bool = False, check: bool = False,
               cwd: Path | None = None, env: Mapping[str, str] | None = None, process_group: int | None = None,
               preexec_fn: Callable[[], None] | None = None) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` of a Python command, as these tests use it: to run a module, a script or a text. `preexec_fn` is
    not called."""
    arguments = [str(word) for word in command]
    with TemporaryFile() as inputs, TemporaryFile() as outputs, TemporaryFile() as errors:
        inputs.write((input or "").encode())
        inputs.seek(0)
        out = outputs.fileno() if capture_output or stdout == subprocess.PIPE else 1
        err = errors.fileno() if capture_output or stderr == subprocess.PIPE else 2
        order = arguments[1:], [inputs.fileno(), out, err], str(cwd or Path.cwd()), os.environ if env is None else env
        try:
            code = call(server(), *order)
        except ConnectionRefusedError:  # another test has killed it
            server.cache_clear()
            code = call(server(), *order)
        captured = []
        for file, number in ((outputs, out), (errors, err)):
            file.seek(0)
            captured.append(file.read().decode() if number > 2 else None)
    if check and code:
        raise subprocess.CalledProcessError(code, arguments, *captured)
    return subprocess.CompletedProcess(arguments, code, *captured)

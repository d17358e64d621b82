"""A `python` and a `drumbeat` for the shell, which start at once: forks of a process that has imported torch
(tests/warm.py)."""

from __future__ import annotations

import sys
from pathlib import Path

from drumbeat.configs.layers import ROOT
from tests.new_python import MODULES
from tests.warm import server

CLIENT = """#!{python} -IS
import json, os, socket, sys
words = {words!r} + sys.argv[1:]
if words[:1] == ["launch/run.py"]:
    words[0] = {script!r}
if not words or not (words[0].endswith(".py") or words[0] == "-m" and words[1] in {modules!r}):
    os.execv({python!r}, [{python!r}, *words])
order = json.dumps({{"words": words, "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [len(order).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(order)
sys.exit(int(connection.recv(16) or b"1") % 256)
"""
"""It hands its words, folder, environment and files over, and waits for the exit code."""


def write_programs(folder: Path) -> None:
    """Makes FOLDER/python and FOLDER/drumbeat."""
    for name, words in (("drumbeat", ["-m", "drumbeat"]), ("python", [])):
        (folder / name).write_text(CLIENT.format(python=sys.executable, words=words, address=f"\0{server()}",
                                                 script=str(ROOT / "launch" / "run.py"), modules=sorted(MODULES)))
        (folder / name).chmod(0o755)

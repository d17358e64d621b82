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
arguments = {arguments!r} + sys.argv[1:]
if arguments[:1] == ["launch/run.py"]:
    arguments[0] = {script!r}
if not arguments or not (arguments[0].endswith(".py") or arguments[0] == "-m" and arguments[1] in {modules!r}):
    os.execv({python!r}, [{python!r}, *arguments])
order = json.dumps({{"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}}).encode()
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [len(order).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(order)
sys.exit(int(connection.recv(16) or b"1") % 256)
"""
"""It sends its arguments, folder, environment and files over, and waits for the exit code."""


def write_programs(folder: Path) -> None:
    """Makes FOLDER/python and FOLDER/drumbeat."""
    for name, arguments in (("drumbeat", ["-m", "drumbeat"]), ("python", [])):
        (folder / name).write_text(CLIENT.format(python=sys.executable, arguments=arguments, address=f"\0{server()}",
                                                 script=str(ROOT / "launch" / "run.py"), modules=sorted(MODULES)))
        (folder / name).chmod(0o755)

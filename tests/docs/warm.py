"""A `python` and a `drumbeat` that start at once: a process that has imported torch forks one for each command.

    python -m tests.docs.warm FOLDER      serves FOLDER/python and FOLDER/drumbeat, which it writes, until it is killed

What it forks are the commands of Drumbeat, the programs that these start for what needs torch, and scripts. All else
that is asked of FOLDER/python, such as the node launcher and torchrun, is a Python of its own.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import traceback
from pathlib import Path

CLIENT = """#!{python} -IS
import json, os, socket, sys
words = {words!r} + sys.argv[1:]
warm = (words[:1] == ["drumbeat"] or words[:1] == ["launch/run.py"] or words[:2] == ["-m", "drumbeat"]
        or words[:2] == ["-m", "drumbeat.configs.importing"] and words[2].startswith("drumbeat.trainers.commands.")
        or words and words[0].endswith(".py"))
if not warm:
    os.execv({python!r}, [{python!r}, *words])
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
asked = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(connection, [len(asked).to_bytes(8, "big")], [0, 1, 2])
connection.sendall(asked)
sys.exit(int(connection.recv(16) or b"1"))
"""
"""What stands at FOLDER/python: it hands its words, folder, environment and files over, and waits for the exit code."""


def main(folder: Path) -> None:
    address = str(folder / "socket")
    server = socket.socket(socket.AF_UNIX)
    server.bind(address)
    import drumbeat.launch.commands.main
    import drumbeat.trainers.report.report
    import drumbeat.trainers.worker  # noqa: F401

    own = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [entry for entry in sys.path if entry not in own]
    python, sys.executable = sys.executable, str(folder / "python")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    server.listen(16)
    for name, words in (("drumbeat", ["drumbeat"]), ("python", [])):
        draft = folder / f".{name}"
        draft.write_text(CLIENT.format(python=python, words=words, address=address))
        draft.chmod(0o755)
        draft.rename(folder / name)
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            serve(connection)
            os._exit(0)
        connection.close()


def serve(connection: socket.socket) -> None:
    """One command: a fork of this process becomes it, and its exit code is the answer."""
    size, files, _, _ = socket.recv_fds(connection, 8, 3)
    text = b""
    while len(text) < int.from_bytes(size, "big"):
        text += connection.recv(1 << 16)
    words, folder, environment = json.loads(text)
    if (child := os.fork()) == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
        connection.close()
        os._exit(become(words, folder, environment))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    connection.sendall(str(code % 256).encode())


def become(words: list[str], folder: str, environment: dict[str, str]) -> int:
    """Does here what a new process would do; its exit code."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    try:
        if words[0] in ("drumbeat", "launch/run.py") or words[1:2] == ["drumbeat"]:
            from drumbeat.__main__ import main as command

            script = words[0] == "launch/run.py"
            code = command(["run", *words[1:]] if script else words[1 + (words[0] == "-m"):],
                           "python launch/run.py" if script else "drumbeat run")
        else:
            if words[0] == "-m":  # as `python -m drumbeat.configs.importing MODULE` does
                from drumbeat.configs.importing import add_user_path

                add_user_path()
                sys.argv = words[2:]
                runpy.run_module(words[2], run_name="__main__", alter_sys=True)
            else:
                sys.argv, sys.path[:0] = words, [folder]
                runpy.run_path(words[0], run_name="__main__")
            code = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    main(Path(sys.argv[1]))

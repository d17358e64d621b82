"""Starts a run or a sweep for the Python API, by the command `run`, `resume`, `rerun` or `sweep`, in a process of its
own.

    python -m drumbeat.launch.commands.from_python ANSWER COMMAND ...

A start changes the environment of its process, handles signals, and leaves a run behind that must outlive it. A
notebook has threads, its own handlers of signals, and a group of processes that ends with its kernel. So the start
happens in a new session. The caller prints what it prints, and finds in the file ANSWER the folder of what was
started, or the faults.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from drumbeat.configs import errors, importing
from drumbeat.configs.errors import Fault, LaunchError, UserError
from drumbeat.configs.output_file import disk_fault
from drumbeat.launch.commands.main import as_command, parse
from drumbeat.launch.start.start import start
from drumbeat.launch.sweeps.resolve import Planned
from drumbeat.launch.sweeps.start import start_planned


def start_detached(words: Sequence[str]) -> Path:
    """Types a command that starts something, without staying attached to it, and prints what it prints. Returns its
    folder. Raises the command's `UserError`. An interrupt (Ctrl-C) ends the start, and leaves nothing behind unless the
    job is submitted already."""
    with TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        with subprocess.Popen(
                [sys.executable, "-m", "drumbeat.configs.importing", "drumbeat.launch.commands.from_python",
                 str(answer), *words],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
                encoding="utf-8", errors="backslashreplace",
                env=os.environ | importing.environment(str(Path.cwd()), importing.python_path())) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    print(line, end="", flush=True)
            except BaseException:
                process.send_signal(signal.SIGINT)
                print(process.stdout.read(), end="", flush=True)
                raise
        found = json.loads(answer.read_text(encoding="utf-8")) if answer.exists() else {}
    if "folder" in found:
        return Path(found["folder"])
    if "faults" in found:
        raise getattr(errors, found["error"])(*(Fault(**fault) for fault in found["faults"]))
    raise LaunchError(Fault(what=f"the start ended with exit code {process.returncode} and no result",
                            where=f"drumbeat {' '.join(words[:2])}", remedy="Its messages are above."))


def answer_to(words: Sequence[str]) -> dict[str, Any]:
    """Starts a run or a sweep. Returns its folder, or the faults."""
    try:
        args = parse([*words])
        spec = args.command.resolve(args)
        if isinstance(spec, Planned):
            start_planned(spec)
            return {"folder": str(spec.folder.path)}
        start(spec, detach=True)
        return {"folder": str(spec.run_dir.path)}
    except UserError as error:
        kind = next(kind for kind in type(error).__mro__ if hasattr(errors, kind.__name__))
        return {"error": kind.__name__, "faults": [vars(fault) for fault in error.faults]}
    except OSError as error:
        if (fault := disk_fault(error, Path(error.filename or Path.cwd()))) is None:
            raise
        return {"error": "LaunchError", "faults": [vars(fault)]}


def main(file: str, words: Sequence[str]) -> int:
    try:
        with as_command():
            found = answer_to(words)
    except KeyboardInterrupt:
        return 130
    Path(file).write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

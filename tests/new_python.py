"""A process that has imported torch, and makes forks of itself like a Python that has just been started.

    python -m tests.new_python SOCKET ROOM      carries out what tests/warm.py sends to the socket of that number

It imports nothing of Drumbeat, of which a run may have a copy of its own. A fork gets all that a new Python has of its
own: arguments, variables, folder, files, path, signals, modules. Where `subprocess` would execute a new Python in it,
that is a fork as well, of the same process that would execute it: each process has the parent that it would have.

Two things a fork does not have of its own: its seed of the hashes of texts, and the stack, which continues that of the
process it is forked from.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import logging
import multiprocessing.util
import os
import random
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import sysconfig
import threading
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

IMPORTED = ("torch", "torch._dynamo", "torch.distributed.run", "torch.utils.tensorboard", "torchvision.transforms.v2",
            "torchmetrics", "submitit.local._local", "submitit.core._submit", "rich.live", "omegaconf", "PIL.Image",
            "cv2", "pyarrow", "jinja2", "matplotlib")
"""Packages of others that commands and ranks need."""
MODULES = {"drumbeat", "drumbeat.configs.importing", "submitit.local._local", "submitit.core._submit",
           "benchmarks.gpu.part", "tests.new_python"}
"""What `python -m` runs in a fork. Not the checkpoint writer, which imports no torch."""
SCRIPT = Path(__file__).parent.parent / "launch" / "run.py"
ROOM = 8192
"""Bytes for the words of a command, which take the place of the server's own in /proc/PID/cmdline."""


def warm(words: Sequence[str]) -> bool:
    """Whether `python WORDS` is to be a fork: `drumbeat`, launch/run.py, and what a run starts."""
    return (words[:1] == ["-m"] and words[1] in MODULES) or words[:1] == [str(SCRIPT)]


def main(number: int) -> None:
    """Imports, and then forks a command for each connection to this socket, until the input is closed."""
    for name in IMPORTED:
        importlib.import_module(name)
    new = NewPython()
    subprocess._fork_exec = new.fork_exec  # type: ignore[attr-defined]
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    gc.collect()
    gc.freeze()
    listener = socket.socket(fileno=number)
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if user == os.geteuid() and os.fork() == 0:  # an abstract socket has no permissions
            serve(connection, new)
        connection.close()


def serve(connection: socket.socket, new: NewPython) -> NoReturn:
    """Forks one command, waits for it and says its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    size, files, _, _ = socket.recv_fds(connection, 8, 3)
    order = json.loads(connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL))
    if (child := os.fork()) == 0:
        put(files)
        close_all_but()
        os.chdir(order["folder"])
        new.become(order["words"], order["environment"])
    close_all_but(connection.fileno())
    connection.sendall(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
    os._exit(0)


def threads() -> int:
    """How many this process has: where it has more than after importing, a fork of it might miss one."""
    return len(os.listdir("/proc/self/task"))


def put(files: Sequence[int]) -> None:
    """Makes these this process's files 0, 1 and 2; where one is -1, it stays."""
    copies = [os.dup(file) if file >= 0 else file for file in files]
    for number, copy in enumerate(copies):
        if copy >= 0:
            os.dup2(copy, number)


def close_all_but(*kept: int) -> None:
    for number in {int(name) for name in os.listdir("/proc/self/fd")} - {0, 1, 2, *kept}:
        with contextlib.suppress(OSError):  # the one that listed them
            os.close(number)


class NewPython:
    """What a process has to undo and to set."""

    def __init__(self) -> None:
        own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        self.path = [entry for entry in sys.path if entry not in ("", str(Path.cwd()), *own)]
        self.installed = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))
        self.filters = list(warnings.filters)
        numbers = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        self.words_at, self.words_size = int(numbers[45]), int(numbers[46]) - int(numbers[45])
        self.threads = threads()
        self.really_fork_exec = subprocess._fork_exec  # type: ignore[attr-defined]

    def fork_exec(self, command: Sequence[Any], *options: Any) -> int:
        """In the place of the function by which `subprocess.Popen` starts a program, with the same arguments."""
        python, *words = map(os.fsdecode, command)
        unbuffered = words[:1] == ["-u"]
        if python != sys.executable or not warm(words[unbuffered:]) or threads() > self.threads:
            return self.really_fork_exec(command, *options)  # type: ignore[no-any-return]
        (_, _, kept, folder, variables, stdin, _, _, stdout, _, stderr, _, failure, _, new_session, group, _, _, _, _,
         in_child, *_) = options
        for file in (sys.stdout, sys.stderr):
            file.flush()
        if child := os.fork():
            return child
        try:
            put([stdin, stdout, stderr])
            close_all_but(*kept)
            if folder is not None:
                os.chdir(folder)
            if new_session:
                os.setsid()
            if group >= 0:
                os.setpgid(0, group)
            if in_child is not None:
                in_child()
            os.close(failure)  # as execve does where nothing fails
            environment = dict(os.environ) if variables is None else dict(
                os.fsdecode(pair).split("=", 1) for pair in variables)
            self.become(words[unbuffered:], environment, unbuffered)
        finally:
            os._exit(1)

    def become(self, words: list[str], environment: dict[str, str], unbuffered: bool = False) -> NoReturn:
        """Runs a script or a module, and ends this process."""
        self.show([sys.executable, *words])
        atexit._clear()
        multiprocessing.util._finalizer_registry.clear()  # type: ignore[attr-defined]
        logging.root.handlers.clear()
        random.seed()
        warnings.filters[:] = self.filters  # type: ignore[index]
        forget_signals()
        os.environ.clear()
        os.environ.update(environment)
        self.forget_modules()
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            by_line = number == 2 or unbuffered or os.isatty(number)
            file = open(number, "w" if number else "r", encoding="utf-8", closefd=False,  # noqa: SIM115
                           buffering=1 if by_line else -1, errors="backslashreplace" if number == 2 else None)
            setattr(sys, name, file)
            setattr(sys, f"__{name}__", file)
        os._exit(self.run(words, list(filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)))))

    def run(self, words: list[str], path: list[str]) -> int:
        """Its exit code."""
        kind = words[0] if words[0] in ("-m", "-c") else ""
        first = {"-m": str(Path.cwd()), "-c": "", "": str(Path(words[0]).resolve().parent)}[kind]
        sys.path[:] = [*([] if "PYTHONSAFEPATH" in os.environ else [first]), *path, *self.path]
        sys.argv = words[1:] if kind == "-m" else ["-c", *words[2:]] if kind else words
        code: Any = 0
        try:
            if kind == "-m":
                runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            elif kind == "-c":
                exec(compile(words[1], "<string>", "exec"), {"__name__": "__main__"})
            else:
                runpy.run_path(words[0], run_name="__main__")
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]  # waits for threads, as Python does at its end
        atexit._run_exitfuncs()
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
        for file in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                file.flush()
        return int(code or 0)

    def forget_modules(self) -> None:
        """All but those of installed packages and of Python's own."""
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", [])), None)
            if file is not None and not str(file).startswith(self.installed):
                del sys.modules[name]
        sys.path_importer_cache.clear()
        importlib.invalidate_caches()

    def show(self, words: list[str]) -> None:
        """Puts the words where /proc/PID/cmdline reads them, and gives the process Python's name again."""
        text = b"".join(os.fsencode(word) + b"\0" for word in words)
        assert len(text) < self.words_size, "more words than there is room for"
        ctypes.memmove(self.words_at, text.ljust(self.words_size, b"\0"), self.words_size)
        ctypes.CDLL(None).prctl(15, Path(sys.executable).name.encode(), 0, 0, 0)  # PR_SET_NAME


def forget_signals() -> None:
    """Handlers go, as with execve; what is ignored stays so."""
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(int(sys.argv[1]))

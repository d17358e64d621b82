"""A fake torchrun with fake ranks: the same command line, processes and files, started in 50 ms.

    launcher ─── fork server            in its own session, as the launcher starts it
                   └─ agent             in its own session, as the fork server starts torchrun
                        └─ rank         in its own session
                             └─ helper  like a worker of torch's DataLoader: it handles SIGTERM

A rank runs until it is asked to stop or `RUN/fake/finish` exists; then rank 0 writes the files that a real one writes.
Each process writes `RUN/fake/<attempt>.<name>.pid`, and the signals it receives to `<attempt>.<name>.signals`.
Standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


def install(folder: Path) -> str:
    """Writes a program that takes the place of Python in a plan, except for the node launcher. Returns its path."""
    program = folder / "fake-python"
    program.write_text(f'#!/bin/sh\ncase "$*" in *submitit.core*) exec {sys.executable} "$@";; esac\n'
                       f'exec {sys.executable} -I -S {__file__} server "$@"\n')
    program.chmod(0o755)
    return str(program)


def pids(run: Path, attempt: int) -> dict[str, int]:
    """The process ids of all that an attempt has started, by name: agent0, rank0, helper0, agent1, ..."""
    found = (run / "fake").glob(f"{attempt}.*.pid")
    return {path.name.split(".")[1]: int(path.read_text()) for path in found}


def received_signals(run: Path) -> dict[str, set[str]]:
    """The signals that each process received, by its name, over all attempts."""
    return {path.name.split(".")[1]: set(path.read_text().split()) for path in (run / "fake").glob("*.signals")}


def server() -> int:
    """Starts agents as requested, as `drumbeat.trainers.forkserver` does."""
    for line in sys.stdin:
        order = json.loads(line)
        with open(order["log"], "ab") as log:
            command = [sys.executable, "-I", "-S", __file__, "agent", str(os.getpid()), *order["arguments"]]
            child = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     env=os.environ | order["environment"])
        print(child.wait(), flush=True)
    return 0


def agent(arguments: list[str]) -> int:
    """Starts the ranks of one node and waits for them, as torchrun does."""
    options = dict(word.lstrip("-").split("=") for word in arguments if word.startswith("--") and "=" in word)
    run, attempt, node = Path(arguments[-2]), arguments[-1], int(options.get("node-rank", "0"))
    each = int(options["nproc-per-node"])
    begin(run, attempt, f"agent{node}")
    ranks = {number: start("rank", run, attempt, number) for number in range(node * each, node * each + each)}
    while True:
        codes = {number: rank.poll() for number, rank in ranks.items()}
        for number, code in codes.items():
            if code:
                for other in ranks.values():
                    other.kill()
                print(f"Root Cause (first observed failure):\n[0]:\n  rank      : {number} (local_rank: 0)\n"
                      f"  exitcode  : {code} (pid: {ranks[number].pid})", flush=True)
                return 1
        if None not in codes.values():
            return 0
        time.sleep(0.01)


def rank(run: Path, attempt: str, number: int) -> int:
    """Stands in for a training rank."""
    helper = start("helper", run, attempt, number)
    begin(run, attempt, f"rank{number}")
    folder = run / "attempts" / f"{int(attempt):03d}"
    while True:
        state = "stopped" if (folder / "stop.json").exists() else (
            "finished" if (run / "fake" / "finish").exists() else "")
        fault = run / "fake" / f"fail{number}"
        if fault.exists():
            error = {"rank": number, "node": "here", "type": "ValueError", "message": fault.read_text(), "step": 3}
            write(folder / f"rank{number}.error.json", json.dumps(error))
            return 1
        if state:
            helper.kill()
            if number == 0 and not stuck(run, "saving"):
                write(folder / "saved.json", json.dumps({"state": state, "step": 1}))
            while stuck(run, "saving") or stuck(run, "leaving"):
                time.sleep(0.01)
            return 0
        time.sleep(0.01)


def stuck(run: Path, place: str) -> bool:
    """Whether the test has made a file of this name, so that the ranks hang here."""
    return (run / "fake" / place).exists()


def begin(run: Path, attempt: str, name: str) -> None:
    """Records signals from now on, then writes the process id, which shows that the process is ready."""
    log = run / "fake" / f"{attempt}.{name}.signals"

    def note(number: int, frame: object) -> None:
        with open(log, "a") as file:
            file.write(f"{signal.Signals(number).name}\n")

    for number in SIGNALS:
        signal.signal(number, note)
    write(run / "fake" / f"{attempt}.{name}.pid", str(os.getpid()))


def start(name: str, run: Path, attempt: str, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", __file__, name, str(run), attempt, str(number), str(os.getpid())]
    return subprocess.Popen(command, start_new_session=name == "rank")


def die_with_parent(parent: int) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.rename(path)


def main(name: str, *arguments: str) -> int:
    if name == "server":
        return server()
    if name == "agent":
        die_with_parent(int(arguments[0]))
        return agent(list(arguments[1:]))
    run, attempt, number, parent = Path(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3])
    die_with_parent(parent)
    if name == "rank":
        return rank(run, attempt, number)
    begin(run, attempt, f"helper{number}")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""A stand-in for torchrun and its ranks: the same command line, the same processes, the same files, and up in 50 ms.

    launcher ─── fork server            in a session of its own, as the launcher starts it
                   └─ agent             in a session of its own, as the fork server starts torchrun
                        └─ rank         in a session of its own
                             └─ helper  like a worker of torch's DataLoader: it handles SIGTERM

A rank runs until it is asked to stop or `RUN/standin/finish` is there; then rank 0 writes what the real one writes.
`RUN/standin/` also takes what the processes have to say: `<attempt>.<name>.pid` and `<attempt>.<name>.heard`.
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

HEARD = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


def install(folder: Path) -> str:
    """A program in `folder` to take the place of Python in a plan, but for the node launcher; its path."""
    program = folder / "standin-python"
    program.write_text(f'#!/bin/sh\ncase "$*" in *submitit.core*) exec {sys.executable} "$@";; esac\n'
                       f'exec {sys.executable} -I -S {__file__} server "$@"\n')
    program.chmod(0o755)
    return str(program)


def pids(run: Path, attempt: int) -> dict[str, int]:
    """Name to process id of all that an attempt has started: agent0, rank0, helper0, agent1, ..."""
    found = (run / "standin").glob(f"{attempt}.*.pid")
    return {path.name.split(".")[1]: int(path.read_text()) for path in found}


def heard(run: Path) -> dict[str, set[str]]:
    """Which signals reached whom, by name, over all attempts."""
    return {path.name.split(".")[1]: set(path.read_text().split()) for path in (run / "standin").glob("*.heard")}


def server() -> int:
    """Starts agents as it is told, as `drumbeat.trainers.forkserver` does."""
    for line in sys.stdin:
        order = json.loads(line)
        with open(order["log"], "ab") as log:
            command = [sys.executable, "-I", "-S", __file__, "agent", str(os.getpid()), *order["words"]]
            child = subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                     env=os.environ | order["environment"])
        print(child.wait(), flush=True)
    return 0


def agent(words: list[str]) -> int:
    """Starts the ranks of one node and waits for them, as torchrun does."""
    options = dict(word.lstrip("-").split("=") for word in words if word.startswith("--") and "=" in word)
    run, attempt, node = Path(words[-2]), words[-1], int(options.get("node-rank", "0"))
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
    """Trains, as it were."""
    helper = start("helper", run, attempt, number)
    begin(run, attempt, f"rank{number}")
    folder = run / "attempts" / f"{int(attempt):03d}"
    while True:
        state = "stopped" if (folder / "stop.json").exists() else (
            "finished" if (run / "standin" / "finish").exists() else "")
        fault = run / "standin" / f"fail{number}"
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


def stuck(run: Path, doing: str) -> bool:
    """Whether the test wants a rank that hangs there: it makes a file of that name."""
    return (run / "standin" / doing).exists()


def begin(run: Path, attempt: str, name: str) -> None:
    """Notes the signals that are heard from now on, and says that all is up."""
    log = run / "standin" / f"{attempt}.{name}.heard"

    def note(number: int, frame: object) -> None:
        with open(log, "a") as file:
            file.write(f"{signal.Signals(number).name}\n")

    for number in HEARD:
        signal.signal(number, note)
    write(run / "standin" / f"{attempt}.{name}.pid", str(os.getpid()))


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


def main(name: str, *words: str) -> int:
    if name == "server":
        return server()
    if name == "agent":
        die_with_parent(int(words[0]))
        return agent(list(words[1:]))
    run, attempt, number, parent = Path(words[0]), words[1], int(words[2]), int(words[3])
    die_with_parent(parent)
    if name == "rank":
        return rank(run, attempt, number)
    begin(run, attempt, f"helper{number}")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

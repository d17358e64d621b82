"""A small family of processes that record the signals they receive:

    task ─┬─ partner        in the task's process group
          └─ child          in a session of its own, as torchrun starts its ranks
               └─ grandchild

It is what test jobs run. Standard library only, so that it is up at once.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

FAMILY = ("task", "partner", "child", "grandchild")


def place() -> tuple[str, str, str]:
    """The place of a task: node name, node number, GPUs."""
    return os.environ["SLURMD_NODENAME"], os.environ["SLURM_NODEID"], os.environ["CUDA_VISIBLE_DEVICES"]


def task(folder: Path) -> None:
    """Be the task; `folder` gets `<name>.pid` and `<name>.signals` of each. Ends when `folder/end` appears."""
    children = [_spawn("partner", folder), _spawn("child", folder, new_session=True)]
    _testify("task", folder)
    for child in children:
        child.wait()


def command(folder: Path) -> str:
    """The shell command of a batch job that runs the task as a step on one node."""
    return f"srun -N1 -n1 {sys.executable} -I {__file__} task {folder}"


def all_up(folder: Path) -> bool:
    return all((folder / f"{name}.pid").exists() for name in FAMILY)


def seen(folder: Path, name: str) -> set[str]:
    """The signals that this process has received so far."""
    path = folder / f"{name}.signals"
    return set(path.read_text().split()) if path.exists() else set()


def _testify(name: str, folder: Path) -> None:
    def note(number: int, frame: FrameType | None) -> None:
        with (folder / f"{name}.signals").open("a") as file:
            file.write(f"{signal.Signals(number).name}\n")

    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, note)
    draft = folder / f"{name}.draft"
    draft.write_text(str(os.getpid()))
    draft.rename(folder / f"{name}.pid")
    while not (folder / "end").exists():
        time.sleep(0.05)


def _spawn(name: str, folder: Path, new_session: bool = False) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-I", __file__, name, str(folder)], start_new_session=new_session)


if __name__ == "__main__":
    name, folder = sys.argv[1], Path(sys.argv[2])
    if name == "task":
        task(folder)
    else:
        if name == "child":
            _spawn("grandchild", folder)
        _testify(name, folder)

"""A start from a slow disk, from a node's launcher to the first step, compared with a plain script under torchrun.

    python -m benchmarks.start [--ranks N ...] [--delay MS] [--json]

What hurts on a shared file system is the number of calls that ask it: to open, look at and list files. strace counts
them in all processes, for each number of ranks, and for the first number it delays each of them, as a slow disk does.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.loop import config_values, prepared, train
from benchmarks.report import Row, show
from benchmarks.work import WORKS
from drumbeat.configs.run.records import FirstStep

CALLS = ("open", "openat", "stat", "lstat", "newfstatat", "statx", "access", "faccessat2", "readlink", "readlinkat",
         "getdents64")
"""The system calls that ask a file system for its entries."""
PEER = "torchrun, torch and torchvision"
WORK = "start-up: one step of the small CNN"
LIMIT = """Limit: one process that imports torch. On each node one process imports for its agent, all ranks and all
attempts, so that calls do not grow with the ranks."""


@dataclass(frozen=True)
class Start:
    """What a start has taken."""

    seconds: float
    """To the first step."""
    calls: int
    opened: int
    """Files that were opened."""


def ours(ranks: int, *tracer: str) -> float:
    """Seconds from the start of a node's fork server to the first step. All its processes run under the `tracer`."""
    with prepared(config_values(replace(WORKS[WORK], samples=256), ranks), ranks) as (run, plan):
        if tracer:
            program = run.path / "python"
            program.write_text(f'#!/bin/sh\nexec {shlex.join([*tracer, plan.python])} "$@"\n')
            program.chmod(0o755)
            plan = replace(plan, python=str(program))
        began = time.time()
        return FirstStep.require(train(run, plan).first_step).time - began


def peer(ranks: int, *tracer: str) -> float:
    """The same of the plain script."""
    began = time.time()
    done = subprocess.run([*tracer, sys.executable, "-m", "torch.distributed.run", "--standalone",
                           f"--nproc-per-node={ranks}", "-m", "benchmarks.plain"], check=True, capture_output=True,
                          text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return float(done.stdout.split("first step ")[1]) - began


def traced(who: str, ranks: int, delay: float = 0.0) -> Start:
    """A start whose calls are counted, and take `delay` milliseconds longer each."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "calls"
        seconds = (ours if who == "ours" else peer)(ranks, *tracer(log, delay))
        return Start(seconds, *counted(log.read_text(errors="replace")))


def tracer(log: Path, delay: float = 0.0) -> list[str]:
    """strace's command line, to which that of a program is added."""
    slow = ["-e", f"inject={','.join(CALLS)}:delay_enter={1e3 * delay:.0f}"] if delay else []
    return ["strace", "-f", "-qq", "--seccomp-bpf", "-e", f"trace={','.join(CALLS)}", *slow, "-o", str(log)]


def counted(log: str) -> tuple[int, int]:
    """The calls in a log of strace, and how many of them have opened a file. A call that another process interrupts
    has two lines, of which the second begins with "<..."."""
    begun = re.findall(rf"^\d+ +(?:{'|'.join(CALLS)})\(", log, flags=re.MULTILINE)
    opened = re.findall(r"^\d+ +(?:<\.\.\. )?open(?:at)?\b.*\) += \d+", log, flags=re.MULTILINE)
    return len(begun), len(opened)


def row(name: str, unit: str, own: float, other: float) -> Row:
    return Row(name=name, unit=unit, ours=own, peer=other, peer_name=PEER, ratio=other / own, wanted=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8], help="numbers of ranks (default: 2 8)")
    parser.add_argument("--delay", type=float, default=0.2, metavar="MS", help="milliseconds of each call on the slow "
                        "disk (default: 0.2)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    if not shutil.which("strace"):
        parser.error("strace is needed, to count calls: apt install strace")
    rows = []
    for ranks in args.ranks:
        delay = args.delay if ranks == args.ranks[0] else 0.0
        own, other = (traced(who, ranks, delay) for who in ("ours", "peer"))
        print(f"{ranks} ranks: {own}, {other}", file=sys.stderr)
        rows += [row(f"start of {ranks} ranks: calls to file systems", "calls", own.calls, other.calls),
                 row(f"start of {ranks} ranks: files opened", "files", own.opened, other.opened)]
        if delay:
            rows.append(row(f"start of {ranks} ranks, {delay:g} ms a call", "s", own.seconds, other.seconds))
    show(rows, as_json=args.json, limit=LIMIT)


if __name__ == "__main__":
    main()

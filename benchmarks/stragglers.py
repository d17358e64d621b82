"""Whether a slow rank is named, and no other: runs in which one rank is stopped for half of the time (SIGSTOP and
SIGCONT, each half a second), and undisturbed runs.

    python -m benchmarks.stragglers [--stopped N] [--clean N] [--work WORD] [--json]

On 2 ranks on this machine's CPU, with one thread each. Every run is an attempt of the real worker under torchrun; all
of them use one fork server.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.loop import config_values, prepared, start
from benchmarks.report import Row, show
from benchmarks.work import WORKS
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.rank_records import RankTimes, SlowRank
from drumbeat.launch.attempts.processes import descendants
from drumbeat.launch.node.torchrun import Agents

HALF_SECONDS = 0.5
"""The rank is stopped, and then continued, for this time."""
NAMED_WITHIN = 60.0
"""Seconds from the first step in which a stopped rank must be named."""
CLEAN_SECONDS = 30.0
"""The length of an undisturbed run, from its first step: longer than a rank has to be slow for being named."""
STOPPED_RANK = 1
LIMIT = """Limit: all stopped runs are named, and no undisturbed one. On a machine that other programs use, too, a rank
that shares its core with one of them is slower in truth."""


def named(plan: JobPlan, agents: Agents, attempt: Attempt, *, stopped: bool
          ) -> tuple[SlowRank, float] | None:
    """The first rank that an attempt names, and the seconds from its first step; None if it names none."""
    start(plan, agents, attempt)
    done = threading.Event()
    try:
        while not attempt.first_step.exists():
            _check(agents, attempt)
        began = time.monotonic()
        if stopped:
            process = rank_process(agents.server.pid)
            threading.Thread(target=stop_half_the_time, args=(process, done), daemon=True).start()
        while time.monotonic() - began < (NAMED_WITHIN if stopped else CLEAN_SECONDS):
            _check(agents, attempt)
            found = RankTimes.read(attempt.ranks)
            if found and found.slow:
                return found.slow[0], time.monotonic() - began
        return None
    finally:
        done.set()
        attempt.request_stop("stopped")
        while agents.poll(within=1.0) is None:
            pass


def _check(agents: Agents, attempt: Attempt) -> None:
    if agents.poll(within=0.2) is not None:
        raise RuntimeError(attempt.log(0).read_text())


def rank_process(server: int) -> int:
    """The process of the rank that is stopped."""
    return next(pid for pid in descendants(server)
                if Path(f"/proc/{pid}/comm").read_text().strip() == f"rank{STOPPED_RANK}")


def stop_half_the_time(pid: int, done: threading.Event) -> None:
    """Stops a process for half of the time, until it is `done`."""
    while not done.is_set():
        os.kill(pid, signal.SIGSTOP)
        time.sleep(HALF_SECONDS)
        os.kill(pid, signal.SIGCONT)
        done.wait(HALF_SECONDS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--stopped", type=int, default=20, help="runs with a stopped rank (default: 20)")
    parser.add_argument("--clean", type=int, default=50, help="undisturbed runs (default: 50)")
    parser.add_argument("--work", default="small CNN, 32 px", help="a part of the name of the workload")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    work = next(name for name in WORKS if args.work in name)
    hits, alarms, delays = 0, 0, []
    with prepared(config_values(replace(WORKS[work], steps=10**7))) as (run, plan):  # which do not end by themselves
        attempt = run.claim_attempt()
        agents = Agents(plan, attempt, 0)
        for number in range(args.stopped + args.clean):
            stopped = number < args.stopped
            found = named(plan, agents, attempt, stopped=stopped)
            right = found is not None and found[0].rank == STOPPED_RANK and found[0].part == "compute"
            if stopped and found and right:
                delays.append(found[1])
            hits, alarms = hits + (stopped and right), alarms + (not stopped and found is not None)
            text = f"{found[0].message}, after {found[1]:.0f} s" if found else "no rank is named"
            print(f"{'stopped' if stopped else 'clean'} {number}: {text}", file=sys.stderr, flush=True)
            attempt = run.claim_attempt()
        agents.close()
    rows = []
    if args.stopped:
        rows.append(Row(name="stopped rank named, with the phase", unit="runs", ours=hits, peer=args.stopped,
                        peer_name="stopped runs", ratio=hits / args.stopped))
    if args.clean:
        rows.append(Row(name="no rank named", unit="runs", ours=args.clean - alarms, peer=args.clean,
                        peer_name="undisturbed runs", ratio=(args.clean - alarms) / args.clean))
    taken = f"Named after {statistics.median(delays):.0f} s (median), {max(delays):.0f} s at most." if delays else ""
    show(rows, as_json=args.json, limit=f"{LIMIT}\n{taken}")


if __name__ == "__main__":
    main()

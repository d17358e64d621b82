"""The cost of a list of many runs, with and without the index of those that have ended.

    python -m benchmarks.listing [--runs N] [--json]

All figures are CPU seconds of a whole command, in a new process, with the files in the page cache; the smallest of
three. The runs are copies of three: a finished one, a failed one, and for one in five hundred a running one.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Row, show
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan, Topology
from drumbeat.configs.run.records import AttemptStart, Heartbeat, Job, Result, State, Verdict
from drumbeat.configs.site import Site
from drumbeat.launch.runs.index import SETTLED_SECONDS

LIMIT = "Limit: Python starts and imports the command in 0.2 s."
TARGET = 0.5
"""Seconds."""

COMMANDS = {"ls": ["ls"], "ls --all": ["ls", "--all"], "ls --json": ["ls", "--json"],
            "status NAME": ["status", "experiment-3"]}


def write_run(run: RunDir, state: State) -> None:
    """Writes the files of a run that a list reads."""
    topology = Topology(nodes=1, ranks_per_node=2, device="cpu", cpus_per_rank=1)
    run.path.mkdir(parents=True)
    JobPlan(run_dir=str(run.path), name=run.path.parent.name, backend="slurm", topology=topology, site=Site(),
            environment={}, folder=str(run.path.parent), restarts=3).write(run.plan)
    Job(backend="slurm", id="1", host="login").write(run.job)
    attempt = run.claim_attempt()
    AttemptStart(job="1.0.0", address="n1", port=1, time=time.time() - 60).write(attempt.launch)
    Heartbeat(step=100, steps=200, loss=0.5, monitor="accuracy", best=0.8, seconds={"training": 50.0},
              validation={"loss": 0.6, "accuracy": 0.8}).write(attempt.heartbeat)
    if state == "finished":
        Result(steps=200, samples_seen=6400, overshoot=0, test={"loss": 0.6, "accuracy": 0.8}).write(run.result)
    if state in ("finished", "failed"):
        Verdict(outcome=state, next="leave", message=state, step=100).write(attempt.verdict)
    run.write_status(state, attempt=0)


def make_runs(home: Path, count: int) -> Path:
    """A folder with so many runs, in fifty experiments."""
    states: tuple[State, ...] = ("finished", "failed", "running")
    for state in states:
        write_run(RunDir(home / "made" / state), state)
    for number in range(count):
        state = "running" if number % 500 == 3 else "failed" if number % 10 == 7 else "finished"
        moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime(1.7e9 + 600 * number))
        shutil.copytree(home / "made" / state, home / "runs" / f"experiment-{number % 50}" / f"{moment}-aaaaa")
    return home / "runs"


def seconds(command: list[str], runs: Path, *, index: bool, tries: int = 3) -> float:
    """The smallest CPU time of a command, of which SLURM's programs have no part."""
    found = []
    for _ in range(tries):
        if not index:
            for file in runs.glob(".index.*"):
                file.unlink()
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "drumbeat", *command, "--runs", str(runs)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | {"PATH": "/nowhere"})
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


def measure(count: int, tries: int = 3) -> list[Row]:
    """A row for each command."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        runs = make_runs(Path(folder), count)
        time.sleep(SETTLED_SECONDS)
        for name, command in COMMANDS.items():
            without = seconds(command, runs, index=False, tries=tries)
            own = seconds(command, runs, index=True, tries=tries)
            rows.append(Row(name=f"{name}, {count:,} runs", unit="CPU s", ours=own, peer=without,
                            peer_name="without the index", ratio=without / own))
            rows.append(Row(name=f"{name}, {count:,} runs", unit="CPU s", ours=own, peer=TARGET, peer_name="target",
                            ratio=TARGET / own, wanted=1.0))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=10_000, help="the number of runs (default: 10,000)")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    show(measure(args.runs), as_json=args.json, limit=LIMIT)


if __name__ == "__main__":
    main()

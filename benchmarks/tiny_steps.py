"""The CPU time of tiny training steps: ours against a bare loop, Lightning Fabric, Accelerate and Lightning's Trainer.

    python -m benchmarks.tiny_steps [--rounds N] [--only WORD] [--json]

A small network is trained with batches of 32 samples in memory, with one thread a rank, so that what a framework adds
to a step is seen beside the arithmetic. Ours is the real worker with a real run folder, curves, status and guards. Each
measurement is a process of its own, and the contestants alternate; the medians over the rounds are shown. CPU time is
user and system time of rank 0, because other programs on the machine disturb wall time more.

`pip install lightning accelerate` installs the peers that are not needed otherwise. Without them their rows are left
out, and said to be.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.loop import prepared, train
from benchmarks.report import Row, show
from benchmarks.tiny_peers import ALL, BATCH, SAMPLES, STEPS

LIMIT = """Limit: the arithmetic alone (forward, backward and Adam on one batch again and again), in us a step: {}"""
INSTALLED_AS = {"fabric": "lightning", "trainer": "lightning", "accelerate": "accelerate"}
"""The packages of the peers that may be missing."""
NAMES = {"bare": "bare loop", "fabric": "Lightning Fabric", "trainer": "Lightning's Trainer",
         "accelerate": "Accelerate"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One setting that the contestants are compared in."""

    peers: tuple[str, ...]
    """Functions of `tiny_peers`."""
    ranks: int = 1
    workers: int = 0
    hidden: tuple[int, ...] = (64,)
    wanted: float = 1 / 1.2
    """The ratio to the bare loop that is good enough; to the others it is 1."""


CASES = {
    "MLP 784-64-10, in memory": Case(peers=("arithmetic", "bare", "fabric", "accelerate", "trainer")),
    "MLP 784-256-128-10, in memory": Case(peers=("arithmetic", "bare"), hidden=(256, 128)),
    "MLP 784-64-10, 2 loader workers": Case(peers=("bare",), workers=2, wanted=1 / 1.1),
    "MLP 784-64-10, 2 ranks": Case(peers=("bare",), ranks=2, wanted=1 / 1.1),
}


def config_values(case: Case) -> dict[str, object]:
    """Our config for the case."""
    return {
        "name": "tiny", "batch_size": BATCH, "precision": "fp32",
        "model": {"_target_": "benchmarks.tiny_peers.Net", "hidden": list(case.hidden)},
        "data": {"train": {"_target_": "benchmarks.tiny_peers.samples"}, "workers": case.workers},
        "phases": {"only": {"epochs": ALL * BATCH / SAMPLES,
                            "optimizer": {"_target_": "torch.optim.Adam", "lr": 1e-3}}},
        "tracking": {"images": 0}, "launch": {"gpus": 0, "procs": case.ranks, "cpus_per_rank": 1},
    }


def command(case: Case, peer: str) -> list[str]:
    """The command of a peer."""
    ranks = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={case.ranks}"] if case.ranks > 1 else []
    return [sys.executable, "-W", "ignore", *ranks, "-m", "benchmarks.tiny_peers", peer, "--workers",
            str(case.workers), "--hidden", *map(str, case.hidden)]


def measured(case: Case, contestant: str) -> tuple[float, float]:
    """Microseconds of CPU time a step: of rank 0, and of rank 0 with its loader workers."""
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks"
        os.environ |= {"MARKS": str(marks), "OMP_NUM_THREADS": "1"}
        if contestant == "ours":
            with prepared(config_values(case)) as (run, plan):
                train(run, plan)
        else:
            subprocess.run(command(case, contestant), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return per_step(marks.read_text())


def per_step(marks: str) -> tuple[float, float]:
    """Microseconds a step from the two lines that the network writes. Raises `ValueError` unless there are two."""
    first, last = map(json.loads, marks.splitlines())
    own, whole = (1e6 * (after - before) / STEPS for before, after in zip(first, last, strict=True))
    return own, whole


def compared(name: str, readings: dict[str, Sequence[tuple[float, float]]], *, workers: bool,
             wanted: float = 1 / 1.2) -> list[Row]:
    """A row for each peer; with loader workers, also one for rank and workers together."""
    rows = []
    for number, what in enumerate(["", ", with the workers' time"] if workers else [""]):
        medians = {who: statistics.median(reading[number] for reading in taken) for who, taken in readings.items()}
        rows += [Row(name=name + what, unit="us/step", ours=medians["ours"], peer=medians[peer],
                     peer_name=NAMES[peer], ratio=medians[peer] / medians["ours"],
                     wanted=wanted if peer == "bare" else 1.0)
                 for peer in readings if peer in NAMES]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each contestant (default: 3)")
    parser.add_argument("--only", default="", metavar="WORD", help="only cases with this word in their names")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    rows: list[Row] = []
    limits = []
    for name, case in CASES.items():
        if args.only not in name:
            continue
        missing = [peer for peer in case.peers if peer in INSTALLED_AS and find_spec(INSTALLED_AS[peer]) is None]
        for peer in missing:
            print(f"{name}: no row for {NAMES[peer]}, because it is not installed: pip install {INSTALLED_AS[peer]}",
                  file=sys.stderr)
        readings: dict[str, list[tuple[float, float]]] = {
            who: [] for who in ("ours", *case.peers) if who not in missing}
        for number in range(args.rounds):
            for who, taken in readings.items():
                taken.append(measured(case, who))
                print(f"{name}, round {number + 1} of {args.rounds}: {who} {taken[-1][0]:.0f} us", file=sys.stderr)
        rows += compared(name, {**readings}, workers=case.workers > 0, wanted=case.wanted)
        if "arithmetic" in readings:
            limits.append(f"{name} {statistics.median(own for own, _ in readings['arithmetic']):.0f}")
    show(rows, as_json=args.json, limit=LIMIT.format("; ".join(limits) or "not measured"))


if __name__ == "__main__":
    main()

"""Evaluation of a set on 2 ranks compared with torchmetrics on one: memory above that of the start, and time.

    python -m benchmarks.evaluation [--rounds N] [--only WORD] [--json]

On this machine's CPU, with one thread for each rank. The outputs come from a linear model, so nearly all time is the
evaluation's own. The contestants alternate (A B A B); the medians over the rounds are shown.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.evaluated import WORKS, Work
from benchmarks.report import Row, show

RANKS = 2
LIMIT = """Limit: rank 0 keeps the outputs once, for metrics and tables, and again as probabilities while all metrics
are computed; the others keep no more than a few batches. Of masks no rank keeps the outputs. Two ranks can take half
the seconds of one. A validation keeps the outputs although loss and accuracy would not need them, because metrics and
pictures of a task may be of any kind: a task with `summary` keeps what it needs."""


def used_by(work: Work, who: str) -> list[dict[str, Any]]:
    """What each rank has used and, rank 0, the metrics."""
    ranks = RANKS if who == "ours" else 1
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
                        "-m", "benchmarks.evaluated", json.dumps(asdict(work)), who, folder],
                       check=True, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        return [json.loads((Path(folder) / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def rows_of(name: str, work: Work, mine: list[list[dict[str, Any]]], theirs: list[list[dict[str, Any]]]) -> list[Row]:
    """The medians of all rounds. Raises `RuntimeError` if the metrics of both differ."""
    for metric, value in mine[0][0]["metrics"].items():
        if metric in (other := theirs[0][0]["metrics"]) and abs(value - other[metric]) > 1e-4:
            raise RuntimeError(f"{metric} of {name}: {value}, and {other[metric]} of torchmetrics")

    def row(what: str, unit: str, own: float, other: float, peer: str = "torchmetrics, 1 rank",
            wanted: float | None = None) -> Row:
        return Row(name=f"{name}: {what}", unit=unit, ours=own, peer=other, peer_name=peer, ratio=other / own,
                   wanted=wanted)

    def median(rounds: list[list[dict[str, Any]]], kind: str, rank: int = 0) -> float:
        return float(statistics.median(ranks[rank][kind] for ranks in rounds))

    cpu = statistics.median(sum(rank["cpu"] for rank in ranks) for ranks in mine)
    memory = median(theirs, "megabytes")
    return [row("time", "s", median(mine, "wall"), median(theirs, "wall"), wanted=1.0 if work.all_metrics else None),
            row("CPU time of all ranks", "s", cpu, median(theirs, "cpu")),
            row("memory of rank 0", "MB", median(mine, "megabytes"), memory),
            row("memory of rank 1", "MB", median(mine, "megabytes", 1), memory),
            row("memory of rank 1", "MB", median(mine, "megabytes", 1), work.megabytes, "one copy of the outputs", 4.0),
            row("memory of rank 0", "MB", median(mine, "megabytes"), work.megabytes, "one copy of the outputs",
                0.45 if work.all_metrics and not work.pixels else 0.9)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=1, help="measurements of each contestant (default: 1)")
    parser.add_argument("--only", default="", metavar="WORD", help="only benchmarks with this word in their names")
    parser.add_argument("--json", action="store_true", help="print a list instead of a table")
    args = parser.parse_args()
    rows: list[Row] = []
    for name, work in WORKS.items():
        if args.only not in name:
            continue
        readings: dict[str, list[list[dict[str, Any]]]] = {"ours": [], "peer": []}
        for number in range(args.rounds):
            for who, taken in readings.items():
                taken.append(used_by(work, who))
                print(f"{name}, round {number + 1} of {args.rounds}: {who} {taken[-1][0]['wall']:.2f} s",
                      file=sys.stderr)
        rows += rows_of(name, work, readings["ours"], readings["peer"])
    show(rows, as_json=args.json, limit=LIMIT)


if __name__ == "__main__":
    main()

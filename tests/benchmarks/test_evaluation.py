"""The benchmark of evaluation at toy size: what each rank uses, and that both contestants compute the same metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.evaluated import Work, main
from benchmarks.evaluation import rows_of, used_by


def used_here(work: Work, who: str, folder: Path) -> list[dict[str, Any]]:
    """As `used_by`, in this process."""
    main(work, who, folder)
    return [json.loads((folder / "rank0.json").read_text())]


@pytest.mark.slow
def test_an_evaluation_on_two_ranks_and_its_peer(tmp_path: Path) -> None:
    work = Work(samples=60, classes=7, batch=8)
    mine, theirs = used_by(work, "ours"), used_here(work, "peer", tmp_path)
    assert [rank.keys() for rank in (*mine, *theirs)] == [{"wall", "cpu", "megabytes", "metrics"}] * 3
    assert mine[1]["metrics"] == {}
    assert {"loss", "accuracy", "balanced_accuracy", "f1", "auroc", "top5_accuracy", "calibration_error"} == {
        *mine[0]["metrics"]} <= {*theirs[0]["metrics"], "average_precision"}
    rows = rows_of("toy", work, [mine], [theirs])
    assert [row.name for row in rows] == ["toy: time", "toy: CPU time of all ranks", "toy: memory of rank 0",
                                          "toy: memory of rank 1", "toy: memory of rank 1", "toy: memory of rank 0"]
    assert rows[-1].peer == work.megabytes == 60 * 7 * 4 / 1e6


def test_other_metrics_than_the_peers_are_an_error() -> None:
    used = {"wall": 1.0, "cpu": 1.0, "megabytes": 1.0}
    ours, peer = [used | {"metrics": {"loss": 1.0}}, used], [used | {"metrics": {"loss": 1.1}}]
    with pytest.raises(RuntimeError, match=r"loss of toy: 1\.0, and 1\.1 of torchmetrics"):
        rows_of("toy", Work(samples=1, classes=2, batch=1), [ours], [peer])


def test_masks(tmp_path: Path) -> None:
    work = Work(samples=6, classes=3, batch=4, pixels=8)
    assert work.megabytes == 6 * 3 * 64 * 4 / 1e6
    mine, theirs = (used_here(work, who, tmp_path)[0]["metrics"] for who in ("ours", "peer"))
    assert mine == pytest.approx(theirs, abs=1e-6)
    assert {*mine} == {"loss", "accuracy", "mean_iou"}

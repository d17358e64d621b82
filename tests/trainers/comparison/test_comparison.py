"""A whole comparison: the same whatever the order of the samples and of the runs of a group."""

from __future__ import annotations

import json
from pathlib import Path

from drumbeat.trainers.comparison.comparison import compare
from tests.trainers.comparison.made import made_run, reordered, samples, write_evaluation


def test_it_is_the_same_in_any_order(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, 1, "seed=0"), made_run(tmp_path, 2, "seed=1"), made_run(tmp_path, 3, "model.width=4")]
    for number, run in enumerate(runs):
        kept = samples(groups=True, skill=0.3 + 1.5 * (number == 2), seed=number)
        write_evaluation(run, reordered(kept, [*range(number, 40), *range(number)]))
    found = compare(runs).as_json()
    json.dumps(found, allow_nan=False)
    assert found == compare([runs[1], runs[0], runs[2]]).as_json()
    assert found["config"] == {"model.width": {"A": "", "B": "4"}}
    accuracy = next(one for one in found["predictions"]["differences"] if one["metric"] == "accuracy")
    assert found["predictions"]["groups"] == 10 and accuracy["low"] > 0 and accuracy["second_is_better"] > 0.95
    turned = compare(runs[::-1]).as_json()["predictions"]["differences"]
    other = next(one for one in turned if one["metric"] == "accuracy")
    assert round(other["high"], 9) == -round(accuracy["low"], 9)


def test_without_evaluations_the_rest_is_compared(tmp_path: Path) -> None:
    found = compare([made_run(tmp_path, 1), made_run(tmp_path, 2, "batch_size=8", accuracy=0.75)])
    assert found.paired is None and found.differences == []
    assert found.values == [("batch_size", ["12", "8"])]
    assert found.metrics == ["validation/loss", "validation/accuracy"]

"""A comparison in a terminal."""

from __future__ import annotations

from pathlib import Path

from drumbeat.trainers.comparison.comparison import compare
from drumbeat.trainers.comparison.text import comparison_text
from tests.trainers.comparison.made import made_run, samples, write_evaluation

LONG = "data.download_hint=" + "a_very_long_text_" * 3


def test_it_fits_a_terminal(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, 1, "seed=0"), made_run(tmp_path, 2, "seed=1", accuracy=0.75),
            made_run(tmp_path, 3, "model.width=4", LONG), made_run(tmp_path, 4, "model.width=16", accuracy=0.9)]
    for number, run in enumerate(runs):
        write_evaluation(run, samples(skill=0.3 * number, seed=number, groups=True))
    text = comparison_text(compare(runs))
    assert max(map(len, text.splitlines())) <= 80, text
    assert text.startswith("A  2 runs, seeds 0, 1: tiny/20260101-100000-aaaa1,")
    rows = [" ".join(line.split()) for line in text.splitlines()]
    assert "validation/accuracy 0.6250 ± 0.1768 0.5000 0.9000" in rows
    assert {"metric A B B - A interval B better?", "metric A C C - A interval C better?"} <= {*rows}
    assert len([row for row in rows if row.startswith("accuracy ") and row.endswith("%")]) == 2


def test_what_is_missing_can_be_typed(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, 1), made_run(tmp_path, 2, "batch_size=8")]
    text = comparison_text(compare(runs))
    assert text.endswith("".join(f"\ndrumbeat evaluate tiny/{run.id} --split test" for run in runs))
    assert "code      not known: a run has no copy of its code" in text and "versions  the same" in text


def test_one_group_has_nothing_to_differ_from(tmp_path: Path) -> None:
    text = comparison_text(compare([made_run(tmp_path, 1, "seed=0"), made_run(tmp_path, 2, "seed=1")]))
    assert "config" not in text and "0.5000 ± 0.0000" in text and "evaluate" not in text

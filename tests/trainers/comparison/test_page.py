"""The report of a comparison: self-contained, escaped, and shown by a real browser."""

from __future__ import annotations

import re
from pathlib import Path

from drumbeat.trainers.comparison.comparison import compare
from drumbeat.trainers.comparison.page import comparison_page, write_page
from drumbeat.trainers.tracking import Tracker
from tests.trainers.comparison.made import made_run, samples, write_evaluation


def test_it_shows_curves_intervals_and_differences(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, 1, "seed=0"), made_run(tmp_path, 2, "seed=1"),
            made_run(tmp_path, 3, "data.download_hint=<script>alert(1)</script>")]
    runs += [made_run(tmp_path, 4, "model.width=4"), made_run(tmp_path, 5, "batch_size=8", name="<b>")]
    for number, run in enumerate(runs):
        write_evaluation(run, samples(skill=0.3 * number, seed=number))
        tracker = Tracker(run, run.claim_attempt(), step=0, config_text="")
        for step in (2, 4, 6):
            tracker.scalars(step, {"train/loss": 1 / (step + number), "train/lr": 0.1})
        tracker.close()
    found = compare(runs)
    text = comparison_page(found)
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r'(src|href)="http', text)
    assert text.count("<figure") == 1 and "A, seed 1, aaaa2" in text and "&lt;b&gt;" in text  # a chart
    assert text.count('aria-label="interval"') == sum(map(len, found.differences)) == 10
    assert '<polyline class="c0"' in text and '<polyline class="c2"' in text
    write_page(found, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")

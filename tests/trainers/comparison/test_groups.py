"""Which runs repeat one experiment, and what differs between those that do not."""

from __future__ import annotations

import math
import statistics
from pathlib import Path

from drumbeat.trainers.comparison.groups import differing_values, differing_versions, grouped
from tests.trainers.comparison.made import made_run


def test_runs_that_differ_in_the_seed_are_one_group(tmp_path: Path) -> None:
    """Whatever their names and their places, and in whatever order they come."""
    runs = [made_run(tmp_path, 2, "seed=1", accuracy=0.75), made_run(tmp_path, 1, "seed=0", "launch.procs=2"),
            made_run(tmp_path, 3, "seed=0", "model.width=4", accuracy=0.9), made_run(tmp_path, 4, name="other")]
    groups = grouped(runs)
    assert [(group.label, group.name, [one.run.id[7:8] for one in group.runs]) for group in groups] == [
        ("A", "tiny, other", ["1", "4", "2"]), ("B", "tiny", ["3"])]
    mean, spread = groups[0].metric("validation/accuracy")
    assert (mean, spread) == (statistics.fmean([0.5, 0.5, 0.75]), statistics.stdev([0.5, 0.5, 0.75]))
    assert math.isnan(groups[1].metric("validation/accuracy")[1]) and math.isnan(groups[1].metric("test/f1")[0])
    assert [[one.run.id for one in group.runs] for group in grouped(runs[::-1])] == [
        [one.run.id for one in group.runs] for group in (groups[0], groups[1])]


def test_the_values_that_differ_are_named_and_secrets_are_not_shown(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, 1, "seed=0"), made_run(tmp_path, 2, "seed=1", "launch.procs=2"),
            made_run(tmp_path, 3, "batch_size=8", "data.train.password=sesame")]
    groups = grouped(runs)
    found = dict(differing_values(groups))
    assert (found["batch_size"], found["launch.procs"]) == (["12", "8"], ["1, 2", "1"])
    assert found["data.train.password"][0] == "" and "sesame" not in str(found)
    assert differing_versions(groups) == []


def test_runs_of_other_code_are_another_group(tmp_path: Path) -> None:
    runs = [made_run(tmp_path, 1), made_run(tmp_path, 2), made_run(tmp_path, 3)]
    for number, run in enumerate(runs):
        (run.path / "code" / "lab").mkdir(parents=True)
        (run.path / "code" / "snapshot.json").write_text('{"trees": [], "home": "", "folder": ""}')
        (run.path / "code" / "lab" / "nets.py").write_text("a" if number < 2 else "b")
        (run.path / "code" / "lab" / "notes.md").write_text(str(number))
    assert [len(group.runs) for group in grouped(runs)] == [2, 1]

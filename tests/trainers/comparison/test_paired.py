"""Sample beside sample: whatever the order in which a run has read its set, and not if the sets are others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.comparison.paired import choose_split, evaluated, paired
from tests.trainers.comparison.made import made_run, reordered, samples, write_evaluation


@pytest.fixture
def runs(tmp_path: Path) -> list[RunDir]:
    return [made_run(tmp_path, 1), made_run(tmp_path, 2, "model.width=4")]


def test_the_order_of_a_set_does_not_matter(runs: list[RunDir]) -> None:
    kept = samples(groups=True)
    write_evaluation(runs[0], kept)
    write_evaluation(runs[1], reordered(kept, [*range(39, -1, -1)]))
    found = paired(runs, "test", None, None)
    one, other = (found.samples[run] for run in runs)
    assert one.names == other.names == sorted(kept.names)
    assert all((one.arrays[name] == other.arrays[name]).all() for name in one.arrays)
    assert found.text == "test set, 40 samples in 10 groups"


def test_samples_of_one_name_stay_in_their_order(runs: list[RunDir]) -> None:
    kept = samples(names=["a.png"] * 39 + ["b.png"])
    write_evaluation(runs[0], kept)
    write_evaluation(runs[1], reordered(kept, [39, *range(39)]))
    found = paired(runs, "test", None, None)
    assert (found.samples[runs[0]].arrays["losses"] == found.samples[runs[1]].arrays["losses"]).all()


def test_groups_are_found_in_the_names(runs: list[RunDir]) -> None:
    for run in runs:
        write_evaluation(run, samples())
    assert paired(runs, "test", None, None).text == "test set, 40 samples"
    found = paired(runs, "test", None, r"(person\d+)_")
    assert found.grouped and found.units.max() + 1 == 10
    with pytest.raises(RunError, match="matches no sample's name"):
        paired(runs, "test", None, r"(patient\d+)")


def test_a_sample_that_one_run_could_not_read_is_left_out(runs: list[RunDir]) -> None:
    write_evaluation(runs[0], samples())
    write_evaluation(runs[1], reordered(samples(), range(1, 40)))
    assert paired(runs, "test", None, None).text == "test set, 39 samples; 1 that not all runs have are left out"


def test_the_best_checkpoint_is_taken_if_it_was_evaluated(runs: list[RunDir]) -> None:
    run = runs[0]
    run.checkpoints.mkdir()
    for step in (10, 20):
        (run.checkpoints / f"step-{step:08d}").mkdir()
    (run.checkpoints / "best").symlink_to("step-00000010")
    assert evaluated(run, "test", None) is None
    write_evaluation(run, samples(), step=20)
    assert evaluated(run, "test", None) == 20 and evaluated(run, "test", "best") is None
    write_evaluation(run, samples(), step=10)
    assert evaluated(run, "test", None) == 10 and evaluated(run, "test", "20") == 20


def test_the_first_set_that_all_have_is_chosen(runs: list[RunDir]) -> None:
    write_evaluation(runs[0], samples())
    for run in runs:
        write_evaluation(run, samples(), "train")
    assert choose_split(runs, None, None) == "train"
    with pytest.raises(RunError, match="1 of 2 runs have no predictions") as raised:
        choose_split(runs, "test", None)
    assert raised.value.faults[0].remedy == f"drumbeat evaluate tiny/{runs[1].id} --split test"


OTHER = {
    "have different tasks": {"kind": "multilabel"},
    "predict different classes": {"outputs": ["cat", "dog"]},
    "hold different samples": {"names": [f"{number}.png" for number in range(40)]},
    "different targets for the same samples": {"arrays": samples().arrays | {"targets": np.zeros(40, dtype=np.int64)}},
}


@pytest.mark.parametrize("message", OTHER)
def test_what_cannot_be_compared_is_one_screen(runs: list[RunDir], message: str) -> None:
    write_evaluation(runs[0], samples())
    write_evaluation(runs[1], samples(**OTHER[message]))
    with pytest.raises(RunError) as raised:
        paired(runs, "test", None, None)
    assert message in " ".join(str(raised.value).split()) and str(raised.value).count("\n") < 12

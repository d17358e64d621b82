"""What a run prints and draws while it trains: lines of 80 columns at intervals, the mean training loss at an
evaluation, and the learning rate that each step was taken with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers import stopping, training_log
from tests.trainers.in_process import RATES, EightMetrics, Witness, new_run, train


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    Witness.rates = []
    return new_run(tmp_path / "run")


def curve(run: RunDir, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(run.tensorboard)).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_the_curve_holds_the_rate_that_each_step_was_taken_with(run: RunDir) -> None:
    """A scheduler that advances after each step already holds the next step's rate when the point is made."""
    train(run)
    assert [step for step, _ in curve(run, "train/lr")] == [*range(1, 13)]
    assert Witness.rates == pytest.approx(RATES)
    assert [rate for _, rate in curve(run, "train/lr")] == pytest.approx(Witness.rates)


def test_also_after_a_resume(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_CHECKS", 0.0)
    assert len(train(run, stop_after=3)) == 3
    assert len(train(run, stop_after=8)) == 5
    train(run)
    assert Witness.rates == pytest.approx(RATES)
    assert [rate for _, rate in curve(run, "train/lr")] == pytest.approx(Witness.rates)


def test_a_line_at_the_first_point_of_each_phase_and_then_at_intervals(run: RunDir, monkeypatch: pytest.MonkeyPatch,
                                                                       capsys: pytest.CaptureFixture[str]) -> None:
    assert training_log.SECONDS_BETWEEN_LINES == 15
    pattern = r"(head|all)  step (\d+)/12  loss (\d\.\d{4})  lr (\S+)  [\d,]+/s  0:0\d left"
    losses = train(run)
    lines = [line for line in capsys.readouterr().out.splitlines() if "validation" not in line]
    found = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    assert found == [("head", "1", f"{losses[0]:.4f}", "1.0e-01"), ("all", "7", f"{losses[6]:.4f}", "3.0e-01")]
    monkeypatch.setattr(training_log, "SECONDS_BETWEEN_LINES", 0.0)
    train(new_run(run.path.parent / "other"))
    lines = capsys.readouterr().out.splitlines()
    found = [match.groups() for line in lines if (match := re.fullmatch(pattern, line))]
    assert [step for _, step, *_ in found] == [*map(str, range(1, 13))]


def test_an_evaluation_prints_the_monitored_metric_first_and_the_loss_since_the_last_one(
        run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    losses = train(run)
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    texts = re.findall(r"(?m)^.*  validation  (?:.*\n)(?:    .*\n)*", out)
    assert len(texts) == 4
    assert texts[0].startswith("head  step 3  validation  macro_f1 0.5000 (best so far)  loss ")
    assert texts[1].startswith("head  step 6  validation  macro_f1 0.5000  loss ")
    for number, text in enumerate(texts):
        mean = sum(losses[3 * number:3 * number + 3]) / 3
        assert " ".join(text.split()).endswith(f"average_precision 0.5000 train loss {mean:.4f}")
        assert {*re.findall(r"([a-z_0-9]+) \d\.\d{4}", text)} == {*EightMetrics.metric_names}


def test_a_line_costs_no_synchronisation_of_its_own(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are read from the device as often with a line at each point as without any."""
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_CHECKS", 0.0)  # the ranks look for a stop before each step
    reads: list[int] = []
    for name in ("item", "tolist", "__float__", "__bool__", "__int__"):
        real = getattr(Tensor, name)
        monkeypatch.setattr(Tensor, name, lambda self, real=real: (reads.append(1), real(self))[1])
    counts = []
    for seconds in (0.0, float("inf")):
        monkeypatch.setattr(training_log, "SECONDS_BETWEEN_LINES", seconds)
        reads.clear()
        train(new_run(run.path.parent / str(seconds)))
        counts.append(len(reads))
    assert counts[0] == counts[1] > 0

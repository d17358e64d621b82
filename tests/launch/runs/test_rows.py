"""Rows of a label and a text, and metrics in them."""

from __future__ import annotations

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.tracker_records import Forwarded
from drumbeat.configs.run.versions import AttemptVersions, Versions
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.rows import NO_BREAK, behind, metrics_text, row, skipped_text
from drumbeat.launch.runs.status import status_text
from drumbeat.launch.runs.why import why
from tests.launch.made import EIGHT
from tests.runs import write_plan, write_state


def test_a_text_is_wrapped_beside_its_label() -> None:
    assert row("why", "short", 8) == "why     short"
    text = " ".join(["twelve-chars"] * 8)
    assert row("why", text, 8).splitlines() == [
        f"why     {' '.join(['twelve-chars'] * 5)}", f"        {' '.join(['twelve-chars'] * 3)}"]


def test_words_that_are_held_together_stay_on_one_line_and_are_printed_with_a_blank() -> None:
    text = f"{'x' * 66} two{NO_BREAK}words"
    assert row("why", text, 8).splitlines() == [f"why     {'x' * 66}", "        two words"]
    assert row("why", text.replace(NO_BREAK, " "), 8).splitlines() == [f"why     {'x' * 66} two", "        words"]


def test_the_monitored_metric_comes_first_and_what_is_no_metric_is_left_out() -> None:
    values = {"step": 12, "phase": "head", "loss": 0.5, "accuracy": 0.25}
    assert metrics_text(values, "accuracy") == f"accuracy{NO_BREAK}0.2500, loss{NO_BREAK}0.5000"
    assert metrics_text(values) == f"loss{NO_BREAK}0.5000, accuracy{NO_BREAK}0.2500"
    assert metrics_text({"step": 12}) == ""


def test_no_name_of_a_metric_is_separated_from_its_value() -> None:
    lines = row("best", metrics_text(EIGHT, "accuracy"), 16).splitlines()
    assert [field.split() for line in lines for field in line.removeprefix("best").strip().rstrip(",").split(", ")] == [
        [name, f"{EIGHT[name]:.4f}"] for name in sorted(EIGHT, key=lambda name: name != "accuracy")]
    assert max(map(len, lines)) <= 80


def test_a_tracker_that_is_behind_is_one_line(run: RunDir) -> None:
    write_plan(run, trackers=("mlflow", "wandb"))
    run.trackers.mkdir()
    Forwarded(rows=3, step=1200).write(run.tracker("wandb"))
    assert [*behind(View.read(run))] == []
    Forwarded(rows=3, step=1200, error="ConnectionError: refused", since=1.0).write(run.tracker("mlflow"))
    assert [*behind(View.read(run))] == [("tracker", "mlflow is behind, at step 1,200: ConnectionError: refused")]
    write_state(run, "finished")
    for text in (status_text(View.read(run)), why(View.read(run))):
        (line,) = " ".join(text.split()).split("tracker ")[1:]
        assert line.startswith("mlflow is behind, at step 1,200: ConnectionError: refused; ")
        assert f"track {run.path} sends the rest" in line


def test_steps_that_were_skipped_are_explained_in_fp16() -> None:
    plain = "3 of 1,200 steps: their loss or gradient was NaN or Inf"
    assert skipped_text(3, 1200, None) == plain
    fp32, fp16 = (AttemptVersions(versions=Versions(precision=one)) for one in ("fp32", "fp16"))
    assert skipped_text(3, 1200, fp32) == plain
    assert skipped_text(3, 1200, fp16) == f"{plain}, as a gradient in fp16 is until its scale fits"

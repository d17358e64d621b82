"""Fields fit 80 columns, no field is broken, and the monitored metric comes first."""

from __future__ import annotations

from drumbeat.configs.text_fields import clock, metric_fields, user_name, wrapped

EIGHT = {"loss": 0.25, "accuracy": 0.9, "balanced_accuracy": 0.875, "macro_precision": 0.8, "macro_recall": 0.7,
         "macro_f1": 0.75, "roc_auc": 0.95, "average_precision": 0.85, "step": 600, "phase": "head"}


def test_eight_metrics_fit_80_columns() -> None:
    text = wrapped(metric_fields(EIGHT, "macro_f1"), first="head  step 600  validation")
    assert text == """\
head  step 600  validation  macro_f1 0.7500  loss 0.2500  accuracy 0.9000
    balanced_accuracy 0.8750  macro_precision 0.8000  macro_recall 0.7000
    roc_auc 0.9500  average_precision 0.8500"""
    assert max(map(len, text.splitlines())) <= 80


def test_a_label_counts_and_a_long_field_stands_by_itself() -> None:
    assert wrapped(["a 1", "b 2"], first="best       ", indent=11) == "best       a 1  b 2"
    assert wrapped(["x" * 70, "y" * 90, "z"], first="best  ", indent=6) == (
        f"best  {'x' * 70}\n      {'y' * 90}\n      z")
    assert wrapped([]) == ""


def test_clock() -> None:
    assert list(map(clock, (0, 59.9, 60, 3600, 36_061))) == ["0:00", "0:59", "1:00", "1:00:00", "10:01:01"]


def test_users_without_a_name() -> None:
    assert [user_name(uid) for uid in (0, 2**31 - 9, 2**99)] == ["root", f"user {2**31 - 9}", f"user {2**99}"]

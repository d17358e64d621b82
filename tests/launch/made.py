"""Runs to test commands with: what they are called, and what is known of them."""

from __future__ import annotations

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import running_evidence

FIRST, SECOND, OTHER = "20260101-100000-aaaaa", "20260102-100000-bbbbb", "20260103-100000-ccccc"
"""The ids of the runs of the fixture `runs`."""

IDS = [f"2026010{day}-100000-{letter * 5}" for day, letter in ((1, "a"), (2, "b"), (3, "c"), (4, "d"))]
"""The ids of the runs of the fixture `listed`."""

EIGHT = {"loss": 0.5, "balanced_accuracy": 0.61, "precision": 0.62, "recall": 0.63, "f1": 0.64, "auroc": 0.65,
         "average_precision": 0.66, "accuracy": 0.6}
"""Eight metrics."""


def evidence(run: RunDir) -> str:
    """What shows that the run is running now."""
    return running_evidence(View.read(run))

"""The metrics of a run: those of its best weights on the validation set, and of the test set."""

from __future__ import annotations

from typing import Any

from drumbeat.configs.run.manifest import linked_checkpoint, progress_at
from drumbeat.configs.run.view import View


def run_metrics(view: View) -> dict[str, float]:
    """`validation/NAME` of the best evaluation so far, `test/NAME` of the test set at the end of the run. Without a
    best evaluation, those of the newest one; empty before the first. NaN for a metric that is undefined."""
    result = view.result
    if result:
        validation = result.best or result.last
    else:
        last = linked_checkpoint(view.run, "last")
        progress = progress_at(last) if last else None
        validation = (progress and (progress.best or progress.last)) or (
            view.heartbeat.validation if view.heartbeat else {})
    return {f"{name}/{metric}": number for name, values in (("validation", validation),
                                                            ("test", result.test if result else {}))
            for metric, number in _numbers(values).items()}


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """The metrics, without the step and the phase. JSON has null in place of NaN."""
    return {name: float("nan") if value is None else float(value) for name, value in values.items()
            if name not in ("step", "phase")}

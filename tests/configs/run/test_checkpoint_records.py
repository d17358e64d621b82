"""The records of checkpoints and evaluations; tests/configs/run/test_records.py reads back all records."""

from __future__ import annotations

import json

import pytest

from drumbeat.configs.run.checkpoint_records import CheckpointFormat, Manifest, Metrics, Progress, Span


def test_a_digest_is_a_text() -> None:
    """There are readers of JSON that keep numbers as doubles."""
    span = Span(phase=1, first_step=0, steps=3, samples=36, digest=f"{2**64 - 1:016x}", attempt=2, world_size=4)
    assert json.loads(json.dumps(span.as_json()))["digest"] == "ffffffffffffffff"


def test_progress_counts_steps_and_samples() -> None:
    assert Progress(step=4, phase_step=1, samples=9).advanced(3) == Progress(step=5, phase_step=2, samples=12)


def test_a_manifest_of_a_newer_format_is_recognized_by_its_first_part() -> None:
    values = {"format": 2, "shards": [1, 2]}
    assert CheckpointFormat.parse(values).format == 2
    with pytest.raises(ValueError, match="'step' is missing"):
        Manifest.parse(values)


def test_an_undefined_metric_is_none_and_not_a_text() -> None:
    values = {"kind": "regression", "metrics": {"r2": None, "mae": 0.5}, "classes": []}
    assert Metrics.parse(values).metrics == {"r2": None, "mae": 0.5}
    with pytest.raises(ValueError, match=r"metrics\.r2"):
        Metrics.parse(values | {"metrics": {"r2": "nan"}})

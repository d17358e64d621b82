"""What the process that sends a run records; tests/configs/run/test_records.py reads back all records."""

from __future__ import annotations

from drumbeat.configs.run.tracker_records import Forwarded


def test_nothing_is_sent_yet() -> None:
    found = Forwarded()
    assert (found.rows, found.step, found.state, found.error, found.since) == (0, 0, "sending", "", 0.0)

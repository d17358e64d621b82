"""The step log: what its files hold, and which attempt's record of a step counts."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.step_log import HEADER, STEP, Step, StepLog, first_difference, header, read_attempt


def record(value: float, digest: int, *ranks: int, skipped: bool = False) -> bytes:
    bits, = struct.unpack("<Q", struct.pack("<d", value))
    return STEP.pack(bits | skipped, digest) + struct.pack(f"<{len(ranks)}I", *ranks)


def write(run: RunDir, first: int, *records: bytes, ranks: int = 1) -> None:
    run.claim_attempt().steps.write_bytes(header(first, ranks) + b"".join(records))


def test_a_record_holds_loss_and_digest(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write(run, 1, record(0.5, 2**64 - 1), record(float("nan"), 7, skipped=True))
    log = StepLog.read(run)
    assert (log.last, log.step(1)) == (2, Step(0.5, 2**64 - 1, False, ()))
    assert repr(log.step(2)) == repr(Step(float("nan"), 7, True, ()))
    assert (log.step(0), log.step(3), log.record(3)) == (None, None, b"")


def test_a_run_on_several_ranks_has_a_digest_for_each(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write(run, 1, record(0.5, 1, 2, 3), record(0.25, 4, 5, 6), ranks=2)
    log = StepLog.read(run)
    assert (log.last, log.step(2)) == (2, Step(0.25, 4, False, (5, 6)))
    assert len(log.record(2)) == 16


def test_a_restart_replaces_the_steps_behind_its_checkpoint(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    write(run, 1, *(record(1.0, step) for step in range(1, 11)))
    write(run, 5, *(record(2.0, step) for step in range(5, 8)))
    run.claim_attempt()  # one that was killed before its first step
    log = StepLog.read(run)
    assert [log.step(step).loss for step in log.steps()] == [1.0] * 4 + [2.0] * 3  # type: ignore[union-attr]
    assert log.last == 7
    assert [one.attempt for one in map(log.attempt_of, range(1, 8)) if one] == [0] * 4 + [1] * 3


@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("torn", [b"\1" * 9, b"\0" * 60])
def test_a_torn_end_is_ignored(tmp_path: Path, ranks: int, torn: bytes) -> None:
    run = RunDir(tmp_path)
    each = (8, 9, 10)[:ranks if ranks > 1 else 0]
    write(run, 1, record(0.5, 1, *each), record(0.25, 2, *each), torn, ranks=ranks)
    log = StepLog.read(run)
    assert (log.last, log.step(2)) == (2, Step(0.25, 2, False, each))


@pytest.mark.parametrize("content", [b"", b"DRUMST"])
def test_a_file_without_a_header_has_no_steps(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "steps.bin").write_bytes(content)
    assert read_attempt(tmp_path / "steps.bin", 0) is None
    assert read_attempt(tmp_path / "none", 0) is None


@pytest.mark.parametrize(("content", "reason"), [
    (HEADER.pack(b"DRUMSTEP", 2, 1, 1), "it has version 2; this Drumbeat reads version 1"),
    (b"\x89HDF\r\n\x1a\n" * 8, "it is no step log")])
def test_another_version_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "steps.bin").write_bytes(content)
    with pytest.raises(DamagedError) as caught:
        read_attempt(tmp_path / "steps.bin", 0)
    assert caught.value.reason == reason


def test_only_steps_of_both_are_compared(tmp_path: Path) -> None:
    one, other = RunDir(tmp_path / "one"), RunDir(tmp_path / "other")
    write(one, 1, *(record(1.0, step) for step in range(1, 7)))
    write(other, 3, *(record(1.0, step, 1, 2) for step in range(3, 9)), ranks=2)  # what ranks did is not compared
    assert first_difference(StepLog.read(one), StepLog.read(other)) is None
    write(other, 5, record(1.0, 5), record(1.0, 4))
    assert first_difference(StepLog.read(one), StepLog.read(other)) == 6

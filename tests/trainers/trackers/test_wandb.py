"""Weights & Biases in offline mode: the files that it writes, read back."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.trackers.wandb import BLOCK, WandB, records
from tests.trainers.trackers.made import CURVES, write_run


@pytest.mark.slow
def test_after_ten_kills_each_step_is_there_once(run: RunDir, sent_while_killed: Callable[..., None],
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    from wandb.proto.wandb_internal_pb2 import Record

    write_run(run, "wandb")
    sent_while_killed("wandb", WANDB_MODE="offline", WANDB_API_KEY="0123456789" * 4)
    files = sorted((run.trackers / "wandb").glob("wandb/offline-run-*/*.wandb"))
    found = [Record.FromString(data) for file in files for data in records(file.read_bytes())]
    rows = [{item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            for record in found if record.WhichOneof("record_type") == "history"]
    assert {tag: [int(row["step"]) for row in rows if tag in row] for tag in CURVES} == CURVES
    assert [int(row["step"]) for row in rows if any("images" in key for key in row)] == [12, 24, 36, 48, 60]
    assert [int(row["_step"]) for row in rows] == list(range(len(rows)))
    assert {record.run.run_id for record in found if record.WhichOneof("record_type") == "run"} == {run.id}
    assert not [file for file in run.path.rglob("*") if file.is_file() and b"0123456789" * 4 in file.read_bytes()]


def test_records_are_read_until_the_torn_one() -> None:
    def record(kind: int, content: bytes) -> bytes:
        return struct.pack("<IHB", 0, len(content), kind) + content

    first = record(1, b"a" * 20) + record(2, b"b" * (BLOCK - 7 - 27 - 7 - 3))
    content = b":W&B\0\0\0" + first
    content += b"\0" * (BLOCK - len(content))  # too small for a header
    content += record(3, b"c" * 5) + record(4, b"d") + record(1, b"e" * 9)
    whole = [b"a" * 20, b"b" * (BLOCK - 44) + b"ccccc" + b"d", b"e" * 9]
    assert list(records(content)) == whole
    assert list(records(content[:-1])) == whole[:2]
    assert list(records(content[:9])) == []
    assert list(records(content + b"\0" * 50)) == whole


def test_without_a_key_there_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("machine other.host login user password x\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert WandB().problem()[0] == "wandb has no API key for api.wandb.ai"
    netrc.write_text("machine api.wandb.ai login user password x\n")
    assert WandB().problem() == ("", "")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.lab.org")
    assert WandB().problem()[0] == "wandb has no API key for wandb.lab.org"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert WandB().problem() == ("", "")
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    assert WandB().problem() == ("", "")

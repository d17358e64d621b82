"""The operations that a run has recorded as nondeterministic, and what its commands claim."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.determinism import Operation, claim, operations, record
from drumbeat.configs.run.folder import RunDir
from tests.runs import write_plan


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path / "run")
    write_plan(run)
    return run


def test_the_first_place_of_each_operation_is_kept(run: RunDir) -> None:
    for name, rank in (("put_", 1), ("Flash Attention", 0), ("put_", 2)):
        record(run, Operation(name=name, attempt=0, rank=rank, line=f"net.py:{rank}"))
    assert operations(run) == ["Flash Attention", "put_"]
    assert {path.name for path in run.nondeterministic.iterdir()} == {"put_.json", "Flash_Attention.json"}
    assert Operation.require(run.nondeterministic / "put_.json").line == "net.py:1"


def test_nothing_is_claimed_of_a_run_without_such_operations(run: RunDir) -> None:
    assert claim(run) == ""
    assert claim(RunDir(run.path / "elsewhere")) == ""


def test_the_config_is_a_reason_before_the_operations(run: RunDir) -> None:
    record(run, Operation(name="put_", attempt=0, rank=0, line="net.py:1"))
    assert claim(run) == "put_ ran without a deterministic implementation: repeating this run may give different bits"
    write_plan(run, deterministic=False)
    assert claim(run) == "deterministic is false: repeating this run may give different bits"

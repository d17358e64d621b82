"""Every record is read back as it was written, and its docstring names its file and who writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run import (
    bad_nodes,
    checkpoint_records,
    code_records,
    determinism,
    plan,
    records,
    tracker_records,
    versions,
)
from drumbeat.configs.run.bad_nodes import BadNode
from drumbeat.configs.run.checkpoint_records import (
    CheckpointFormat,
    CheckpointState,
    ConfigChange,
    EvaluationMetrics,
    FileDigest,
    Manifest,
    Metrics,
    PhaseEnd,
    Progress,
    Span,
)
from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree
from drumbeat.configs.run.determinism import Operation
from drumbeat.configs.run.files import DamagedError, write_json
from drumbeat.configs.run.plan import Allocation, JobPlan, Topology
from drumbeat.configs.run.rank_records import Imports
from drumbeat.configs.run.record import Record
from drumbeat.configs.run.records import (
    AttemptStart,
    Change,
    FirstStep,
    Heartbeat,
    Job,
    Next,
    NodeDown,
    NodeUp,
    Outcome,
    RankError,
    Result,
    Saved,
    State,
    Status,
    StopRequest,
    Verdict,
)
from drumbeat.configs.run.tracker_records import Forwarded
from drumbeat.configs.run.versions import AttemptVersions, Versions
from drumbeat.configs.site import Site

BEST = {"step": 3, "phase": "head", "loss": 0.25, "accuracy": 1.0}
TOPOLOGY = Topology(nodes=2, ranks_per_node=4, device="cuda", cpus_per_rank=8)
ALLOCATION = Allocation(job_id="7", nodes=2, cpus_per_node=64, gpus_per_node=8, in_step=True, restarts=1)
SPAN = Span(phase=1, first_step=2**40, steps=3, samples=36, digest=f"{2**64 - 1:016x}", attempt=2, world_size=4)
END = PhaseEnd(phase=0, steps=40, reason="patience", text="phase head ended")
CHANGE = ConfigChange(key="batch_size", old=4, new=None, step=7, attempt=2, user="me", time=1.5)
PROGRESS = Progress(step=7, phase=1, phase_step=2, samples=60, skipped=1, ledger=(SPAN, SPAN), data={"samples": 9},
                    best=BEST, last=BEST, seconds={"training": 1.5}, changes=(CHANGE,),
                    top=({"step": 3.0, "value": 0.25},), kept=(3,), plateau=0.25, stale=1, ended=(END,))
VERSIONS = Versions(drumbeat="0.1.0", python="3.11.2", torch="2.14.1", cuda="13.0", nccl="2.28.9",
                    device="NVIDIA H100", precision="bf16")
TREE = CodeTree(name="lab", folder="/home/me/lab", files=3, bytes=99, commit="0123", changed_files=1)
IMPORTS = Imports(seconds=94.5, waited=88.5, folder="/shared/env")
ALL = [
    IMPORTS,
    Operation(name="cumsum_cuda_kernel", attempt=1, rank=3, line="net.py:7"),
    Job(backend="slurm", id="4711", host="login", pid=3, next_job="4712", cancelled=True),
    Status(state="failed", attempt=3, verdict="rank 1 on n1 was killed", time=1.5),
    Heartbeat(step=1, steps=9, phase="head", phase_step=1, phase_steps=3, epoch=0.5, loss=0.25, samples_per_second=9.5,
              eta_seconds=8.0, validation={"loss": 0.5}, seconds={"training": 1.0}, gpu={"peak": 2**40},
              imports=IMPORTS, pause_reason="full", time=2.5),
    Result(steps=9, samples_seen=90, overshoot=2, samples_skipped=1, weights_sha256="ab", last=BEST, best=BEST,
           test={"loss": 0.5}),
    Change(command="resume", pid=7, host="n1", space="boot pid:[1]", time=1.0),
    AttemptStart(job="7.0.0", host="n1", nodes=("n1", "n2"), address="10.0.0.1", port=29500, time=1.0),
    FirstStep(resumed_from=3, time=1.0),
    StopRequest(reason="stopped", time=1.0),
    Saved(state="stopped", step=7),
    Verdict(outcome="failed", next="restart", message="no", step=3, reason="stopped", rank=1, error="ValueError",
            bad_nodes={"n2": "it has lost its GPU"}),
    NodeUp(host="n1", interface="ib0", connection_error="No route to host", connection_seconds=1.5),
    NodeDown(exit_code=-9, host="n1", message="it did not begin", check="failed"),
    NodeDown(exit_code=None, host="n1"),
    BadNode(node="n2", reason="it has lost its GPU", run="20261128-183858-ypnga", time=1.0),
    RankError(rank=1, node="n1", type="ValueError", message="no", step=7, traceback="Traceback", user_error=True,
              time=1.0),
    SPAN, END, CHANGE, PROGRESS,
    CheckpointState(progress=PROGRESS, optimizer={"groups": [{"lr": 0.1}]}, scheduler={"last_epoch": 3},
                    versions=VERSIONS, config={"phases": {"head": {"epochs": 2.0}}}),
    FileDigest(bytes=7, sha256="ab"),
    CheckpointFormat(format=1),
    Manifest(format=1, step=7, attempt=2, files={"model.safetensors": FileDigest(bytes=7, sha256="ab")}),
    Metrics(kind="regression", metrics={"mae": None}, classes=[{"name": "x", "r2": None}]),
    EvaluationMetrics(run="20260101-000000-aaaaa", split="test", checkpoint="best weights", step=3, samples=4,
                      unreadable=0, kind="classification", metrics={"loss": 0.5}, classes=[{"name": "cat"}],
                      confusion=[[1, 0], [2, 1]]),
    Forwarded(rows=7, step=60, state="done", error="ConnectionError: refused", since=1.0, time=2.0),
    VERSIONS, AttemptVersions(versions=VERSIONS, changes=("torch 2.14.1 at the checkpoint, 2.15.0 now",)),
    TREE,
    CodeSnapshot(trees=(TREE,), home="drumbeat/src", folder="lab", python_path=("lab/src",), time=1.0),
    TOPOLOGY, ALLOCATION,
    JobPlan(run_dir="/runs/x", name="x", backend="here", topology=TOPOLOGY, site=Site(partition="gpu", sbatch={"a": 1}),
            environment={"OMP_NUM_THREADS": "8"}, folder="/home/me", restarts=3, allocation=ALLOCATION,
            python="/bin/python", versions=VERSIONS, trackers=("mlflow",), notify=("failed",)),
]


def test_results_are_strict_json(tmp_path: Path) -> None:
    """NaN and Inf are null, and a null number is NaN."""
    path = tmp_path / "result.json"
    Result(steps=9, samples_seen=90, overshoot=2, test={"loss": math.nan}, best={"loss": math.inf}).write(path)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    found = Result.require(path)
    assert math.isnan(found.test["loss"])
    assert found.best == {"loss": None}


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_what_was_written_is_read_back(tmp_path: Path, record: Record) -> None:
    record.write(tmp_path / "file.json")
    found = type(record).require(tmp_path / "file.json")
    assert found == record
    assert found.unknown == {}


def test_every_record_is_tried() -> None:
    modules = (records, bad_nodes, checkpoint_records, code_records, determinism, plan, tracker_records, versions)
    defined = {value for module in modules for value in vars(module).values()
               if isinstance(value, type) and issubclass(value, Record)} - {Record}
    assert {type(record) for record in ALL} == defined


@pytest.mark.parametrize("record", ALL, ids=lambda record: type(record).__name__)
def test_a_newer_version_may_write_more(record: Record) -> None:
    found = type(record).parse(record.as_json() | {"later": {"x": 1}})
    assert found == record
    assert found.as_json() == record.as_json() | {"later": {"x": 1}}


@pytest.mark.parametrize(("outcome", "after", "reason", "state"), [
    ("failed", "restart", "", "running"), ("stopped", "requeue", "time limit", "preempted"),
    ("failed", "give up", "", "failed"), ("finished", "leave", "", "finished"),
    ("stopped", "leave", "stopped", "stopped"), ("stopped", "leave", "cancelled", "cancelled"),
])
def test_the_state_after_a_verdict(outcome: Outcome, after: Next, reason: str, state: State) -> None:
    assert Verdict(outcome=outcome, next=after, message="", step=-1, reason=reason).state == state


@pytest.mark.parametrize("name", ["id", "next_job"])
@pytest.mark.parametrize("value", ["../../../../priv/logs/9", "**", "/**/x", "a\0b", "-A", "7 8", "", "7;a b"])
def test_the_id_of_a_job_is_a_number(tmp_path: Path, name: str, value: str) -> None:
    """It becomes a part of paths and of commands."""
    write_json(tmp_path / "job.json", {"backend": "slurm", name: value})
    with pytest.raises(DamagedError) as error:
        Job.read(tmp_path / "job.json")
    assert error.value.reason.endswith(" is not the id of a job")


@pytest.mark.parametrize(("record", "values"), [
    (Heartbeat, {"step": 10**400}), (Heartbeat, {"loss": 10**400}), (Heartbeat, {"seconds": {"training": 10**400}}),
    (Heartbeat, {"time": 1e300}), (Status, {"state": "running", "time": -1e300}),
    (AttemptStart, {"job": "7", "address": "n1", "port": 1, "time": 10**400})])
def test_numbers_out_of_range(tmp_path: Path, record: type[Record], values: dict[str, Any]) -> None:
    write_json(tmp_path / "file.json", values)
    with pytest.raises(DamagedError) as error:
        record.read(tmp_path / "file.json")
    assert error.value.reason.endswith("which is out of range")

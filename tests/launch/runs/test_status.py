"""What `status` tells of a run whose launcher could not say how it ended."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir, write_json, write_text
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.status import gone, status_text
from tests.tiny import CONFIG


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that says it is at work on this machine, and is not."""
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")
    run.path.mkdir(parents=True)
    write_text(run.config, CONFIG)
    write_json(run.plan, {"run_dir": str(run.path)})
    write_json(run.job, {"where": "local", "id": "1", "host": socket.gethostname(), "process": None})
    write_json(run.claim_attempt().launch, {"job": "local-1.0", "time": time.time() - 60})
    run.write_status(state="running", step=12)
    return run


def test_a_launcher_that_was_killed(run: RunDir) -> None:
    folder = run.checkpoints / "step-00000009"
    folder.mkdir(parents=True)
    write_json(folder / "manifest.json", {})
    told = gone(run)
    assert told["state"] == "failed"
    assert told["verdict"] == (
        "its launcher was killed, or its machine went down; the last checkpoint is of step 9")
    text = status_text(run)
    assert "state       failed" in text
    assert f"drumbeat resume {run.path}\n" in text


def test_programs_are_told_the_same_of_a_run_that_is_gone(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "failed"


def test_a_rank_that_could_still_say_why(run: RunDir) -> None:
    write_json(run.attempt(0).error(1), {"rank": 1, "node": "n2", "type": "ValueError", "message": "boom", "step": 7,
                                         "time": time.time(), "traceback": ""})
    assert gone(run)["verdict"].startswith("rank 1 on n2 failed at step 7: ValueError: boom; there is no checkpoint")


@pytest.mark.parametrize("state", ["pending", "preempted", "finished", "stopped", "cancelled", "failed"])
def test_who_waits_or_has_ended_is_not_gone(run: RunDir, state: str) -> None:
    run.write_status(state=state)
    assert gone(run) == {}


def test_a_cluster_that_spoke_lately_is_not_asked(run: RunDir) -> None:
    write_json(run.job, {"where": "slurm", "id": "17", "host": "login", "process": None})
    assert gone(run) == {}


def test_the_gpu_of_a_run_at_work(run: RunDir) -> None:
    write_json(run.job, {"where": "slurm", "id": "17", "host": "login", "process": None})
    run.write_status(gpu={"held": 50 * 2**30, "peak": 40 * 2**30, "all": 80 * 2**30, "busy": 93})
    assert "GPU         50.0 of 80.0 GiB held by rank 0, tensors 40.0 at most, 93% busy" in status_text(run)
    run.write_status(state="stopped")
    assert "GPU" not in status_text(run)


def test_where_its_time_went_is_told(run: RunDir) -> None:
    run.write_status(seconds={"starting": 6.0, "training": 45.0, "evaluating": 3.0, "waiting": 0.0, "saving": 6.0},
                     state="stopped")
    assert "time        training 75%, evaluating 5%, saving 10%, starting 10%" in status_text(run)

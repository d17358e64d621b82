"""What `status` tells of a run whose launcher could not say how it ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest

from drumbeat.configs.run.bad_nodes import forget, remembered
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing
from drumbeat.configs.run.processes import process_space
from drumbeat.configs.run.rank_records import Imports, RankTimes, SlowRank
from drumbeat.configs.run.records import AttemptStart, RankError, Result, Saved, State, Status
from drumbeat.configs.run.view import View
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.attach import print_end
from drumbeat.launch.runs.status import final_status, status_text, unrecorded_end, with_final_state
from drumbeat.launch.runs.why import why
from tests.launch.fake_slurm import programs
from tests.launch.made import EIGHT
from tests.runs import write_heartbeat, write_job, write_plan, write_state


def recorded_end(run: RunDir) -> Status:
    """The end of a run without processes."""
    status = unrecorded_end(View.read(run))
    assert status is not None
    return status


def text_of(run: RunDir) -> str:
    return status_text(with_final_state(View.read(run)))


def test_a_launcher_that_was_killed(run: RunDir) -> None:
    folder = run.checkpoints / "step-00000009"
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
    told = recorded_end(run)
    assert told.state == "failed"
    assert told.verdict == "its launcher was killed, or its machine failed; the last checkpoint is at step 9"
    text = text_of(run)
    assert "state           failed" in text
    assert f"drumbeat resume {run.path}\n" in text


def test_the_json_of_a_run_without_processes_says_failed(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "failed"


def test_a_rank_that_could_still_say_why(run: RunDir) -> None:
    RankError(rank=1, node="n2", type="ValueError", message="boom", step=7).write(run.attempt(0).error(1))
    assert recorded_end(run).verdict.startswith(
        "rank 1 on n2 failed at step 7: ValueError: boom; there is no checkpoint")


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_ranks_that_ended_in_order_before_their_launcher_was_killed(run: RunDir, state: Literal["finished", "stopped"]
                                                                    ) -> None:
    Saved(state=state, step=42).write(run.attempt(0).saved)
    told = recorded_end(run)
    assert (told.state, told.verdict) == (state, {"finished": "finished", "stopped": "stopped at step 42"}[state])


def test_a_start_without_an_attempt_does_not_take_the_previous_result(run: RunDir) -> None:
    Saved(state="stopped", step=42).write(run.attempt(0).saved)
    write_state(run, "pending")
    assert final_status(View.read(run)).verdict == (
        "its launcher was killed, or its machine failed; there is no checkpoint")


def test_why_says_what_status_says(run: RunDir) -> None:
    """Of a run that is dead, though its files say that it runs."""
    assert "state           failed\n" in text_of(run)
    told = why(with_final_state(View.read(run)))
    assert "state       failed\nwhy         its launcher was killed, or its machine failed; there is no" in told
    assert "fix         Resume it: " in told


def test_a_start_that_was_killed_has_failed(run: RunDir) -> None:
    """Before it had started a job: the folder says pending for ever."""
    write_state(run, "pending")
    write_job(run, space=process_space())
    with changing(run, "resume"):
        assert unrecorded_end(View.read(run)) is None
    status = unrecorded_end(View.read(run))
    assert status and status.verdict == "the command that started it was killed; there is no checkpoint"
    write_job(run, id="1", space=process_space())
    status = unrecorded_end(View.read(run))
    assert status and status.verdict == "its launcher was killed, or its machine failed; there is no checkpoint"
    write_job(run, "slurm", id="17")
    assert unrecorded_end(View.read(run)) is None, "it is in the queue"


@pytest.mark.parametrize("state", ["preempted", "finished", "stopped", "cancelled", "failed"])
def test_a_waiting_or_ended_run_keeps_its_state(run: RunDir, state: State) -> None:
    write_state(run, state)
    assert unrecorded_end(View.read(run)) is None


def test_slurm_is_not_asked_after_a_recent_heartbeat(run: RunDir) -> None:
    write_job(run, "slurm", id="17", host="login")
    assert unrecorded_end(View.read(run)) is None


def test_the_gpu_of_a_running_run(run: RunDir) -> None:
    write_job(run, "slurm", id="17", host="login")
    write_heartbeat(run, gpu={"reserved": 50 * 2**30, "peak": 40 * 2**30, "total": 80 * 2**30, "utilization": 93})
    assert "GPU             50.0 of 80.0 GiB held by rank 0, tensors 40.0 at most, 93% busy" in text_of(run)
    write_state(run, "stopped")
    assert "GPU" not in text_of(run)


def test_how_many_ranks_are_left(run: RunDir) -> None:
    write_job(run, "slurm", id="17", host="login")
    assert "\nranks " not in text_of(run)
    AttemptStart(job="17.0.0", address="n1", port=1, ranks=1).write(run.attempt(0).launch)
    assert "\nranks           1 of 2: some nodes are left out, or SLURM had no more\n" in text_of(run)
    assert "\nranks       1 of 2: some nodes are left out, or SLURM had no more" in why(View.read(run))


def test_a_slow_rank_is_named(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    write_job(run, "slurm", id="17", host="login")
    slow = SlowRank(rank=3, node="gpu07", part="compute", share=0.41, step=120, time=1000.0)
    RankTimes(step=200, data=(), compute=(), cores=(), wait=(), slow=(slow,)).write(run.attempt(0).ranks)
    assert """
slow rank       rank 3 on gpu07 computes more slowly than the others, which wait
                for it 41% of the time
""" in text_of(run)
    assert main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["slow_rank"] == slow.as_json()


def test_a_slow_start_is_told_while_the_run_is_running(run: RunDir) -> None:
    write_job(run, "slurm", id="17", host="login")
    write_heartbeat(run, imports=Imports(seconds=94.2, waited=88.4, folder="/shared/env"))
    assert """
slow start      imports took 94 s, 88 s of which they waited for files:
                /shared/env is on a slow disk. A copy on each node's own disk,
                or a container image, starts faster
""" in text_of(run)
    write_heartbeat(run, imports=Imports(seconds=94.2, waited=8.4, folder="/shared/env"))
    assert "slow start" not in text_of(run)


def test_the_time_is_shown_by_kind_of_work(run: RunDir) -> None:
    write_heartbeat(run, seconds={"starting": 6.0, "training": 45.0, "evaluating": 3.0, "waiting": 0.0, "saving": 6.0})
    write_state(run, "stopped")
    assert "time            training 75%, evaluating 5%, saving 10%, starting 10%" in text_of(run)


def test_eight_metrics_fit_80_columns_with_the_monitored_one_first(run: RunDir,
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    write_heartbeat(run, step=12, validation=EIGHT, monitor="accuracy", best=0.6)
    write_state(run, "finished")
    Result(steps=12, samples_seen=144, overshoot=0, best={"step": 12, "phase": "head", **EIGHT}, test=EIGHT).write(
        run.result)
    wrapped = """\
accuracy 0.6000, loss 0.5000, balanced_accuracy 0.6100,
                precision 0.6200, recall 0.6300, f1 0.6400, auroc 0.6500,
                average_precision 0.6600
"""
    text = text_of(run)
    assert all(f"\n{label:<16}{wrapped}" in text for label in ("validation", "best", "test"))
    assert print_end(View.read(run)) == 0
    out = capsys.readouterr().out
    assert "\nbest       accuracy 0.6000, loss 0.5000, " in out
    assert "(step 12, head)\ntest       accuracy 0.6000, " in out
    assert max(len(line) for line in [*text.splitlines()[:-1], *out.splitlines()] if "/" not in line) <= 80


def test_an_attempt_that_has_taken_no_step_yet_shows_the_last_loss_and_no_speed(run: RunDir) -> None:
    """Neither before it has a heartbeat, nor before its first point."""
    write_job(run, "slurm", id="17", host="login")
    write_heartbeat(run, step=12, steps=42, loss=0.25, samples_per_second=99.0, eta_seconds=60.0)
    assert "speed           99.0 samples/s, 1:00 left" in text_of(run)
    run.claim_attempt()
    for _ in range(2):
        text = text_of(run)
        assert "train loss      0.2500\n" in text
        assert "speed" not in text
        write_heartbeat(run, step=9, steps=42)
    assert "step            9 of 42" in text_of(run)


def test_how_the_last_attempt_ended_is_not_called_the_verdict_of_a_running_one(run: RunDir) -> None:
    write_job(run, "slurm", id="17", host="login")
    write_state(run, "running", "rank 1 on n1 was killed; the last checkpoint is at step 9")
    text = text_of(run)
    assert "\nlast attempt    rank 1 on n1 was killed; the last checkpoint is at step 9\n" in text
    assert "verdict" not in text


def test_the_nodes_of_a_job_that_slurm_lost_are_remembered_with_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                        ) -> None:
    """By the first command that sees the end, because SLURM soon forgets it."""
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")
    write_plan(run, backend="slurm")
    write_state(run, "running", ago=9999)
    write_job(run, "slurm", id="12")
    monkeypatch.setenv("PATH", programs(
        tmp_path, squeue="exit 0", sinfo="echo 'n1|idle'; echo 'n2|down*'",
        scontrol="echo 'JobId=12 JobState=NODE_FAIL ExitCode=0:0 NodeList=n[1-2]'"))
    assert with_final_state(View.read(run)).state == "failed"
    (bad,) = remembered(run.path.parent.parent)
    assert (bad.node, bad.reason, bad.run) == ("n2", "SLURM lost it (NODE_FAIL)", run.id)
    forget(run.path.parent.parent, ["n2"])
    assert with_final_state(View.read(run)).state == "failed"
    assert remembered(run.path.parent.parent) == [], "only once"

"""What a drill has shown: the lines, the conclusion and the exit code."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import AttemptStart, Status
from drumbeat.launch.drill.outcome import Injection, conclusion, exit_code, header, line, summary
from tests.runs import write_heartbeat, write_plan


def test_the_exit_code_distinguishes_lost_from_not_proven() -> None:
    done, missing = Injection(name="rank", description="SIGKILL to a rank"), Injection(
        name="disk", description="disk full while saving", not_injected="the run finished before")
    assert exit_code([], [done]) == 0
    assert exit_code(["x"], [done, missing]) == 1
    assert exit_code([], [done, missing]) == 3
    assert conclusion([], [done, missing], []) == [
        "NOT ALL PROVEN: nothing was lost, but not all faults were injected", "proven         SIGKILL to a rank",
        "not proven     disk full while saving: the run finished before"]
    assert " ".join(line(2, missing).split()) == "2 disk full while saving not injected: the run finished before"


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run that took 40 seconds."""
    run = RunDir(tmp_path / "run")
    write_plan(run)
    AttemptStart(job="local-1.0", address="n1", port=1, time=1000.0).write(run.claim_attempt().launch)
    write_heartbeat(run, seconds={"starting": 10.0, "training": 30.0})
    Status(state="finished", time=1040.0).write(run.status)
    return run


def test_an_injected_fault_has_its_costs_and_below_them_how_the_attempt_ended() -> None:
    one = Injection(name="rank", description="SIGKILL to a rank").done(
        step=1234, lost=12, seconds=3.04, verdict="rank 1 was killed")
    assert header("fault").split() == ["step", "fault", "lost", "steps", "recovery", "time"]
    assert line(3, one).splitlines() == [
        "  3      1,234  SIGKILL to a rank                       12          3.0 s",
        "                rank 1 was killed"]
    assert len(header("fault")) == len(line(3, one).splitlines()[0])


def test_the_summary_counts_what_was_injected_only(run: RunDir) -> None:
    made = [Injection(name="rank", description="SIGKILL to a rank", lost_steps=lost, recovery_seconds=seconds)
            for lost, seconds in ((600, 9.0), (500, 1.0), (0, 2.0))]
    missing = made[0].failed("no process 'rank' is running")
    assert summary([*made, missing], [made[0], missing], run, runs=[run]) == f"""
faults         3 of 4 injected; 1 of 2 changes of the number of ranks
lost steps     1,100, taken again
recovery time  2.0 s (median), 9.0 s (longest)
time           training 75%, starting 25%
effective      0.75 of the time went into steps and evaluations that count
run            {run.path}"""


def test_a_loss_counts_for_more_than_a_fault_that_was_not_injected(run: RunDir) -> None:
    missing = Injection(name="disk", description="disk full while saving", not_injected="no checkpoint")
    assert conclusion(["weights_sha256 differs"], [missing], [run]) == ["LOST           weights_sha256 differs"]
    assert exit_code(["weights_sha256 differs"], [missing]) == 1


def test_what_may_give_different_bits_is_noted_once_for_all_runs(run: RunDir) -> None:
    write_plan(run, deterministic=False)
    done = Injection(name="rank", description="SIGKILL to a rank")
    assert conclusion([], [done], [run, run]) == [
        "nothing lost: the same weights bit for bit, the same samples, each step once in the curves",
        "note           deterministic is false: repeating this run may give different bits"]

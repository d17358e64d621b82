"""`drumbeat profile`: what it refuses, what it waits for, and the table that it prints; and on a real run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.errors import LaunchError, RunError
from drumbeat.configs.run.attempt import Attempt
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.profile_records import Profile, ProfileRequest
from drumbeat.configs.run.records import Result, State
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.find import find_run
from drumbeat.launch.runs.profile import profile
from tests.processes import until
from tests.runs import write_heartbeat, write_state
from tests.tiny import drumbeat, latest, write_config

PROFILE = Profile(id="a", step=120, steps=5, data=(0.1, 0.2), forward=(1.0, 1.0), backward=(2.0, 3.0),
                  communication=(1.1, 0.0), optimizer=(0.1, 0.1), other=(0.0, 0.0), samples=(32.0, 32.0), traces=(1,))


@pytest.fixture
def live(runs: Path, debug_here: Callable[[RunDir], None]) -> RunDir:
    run = find_run("tiny", runs)
    run.claim_attempt()
    write_state(run, "running")
    debug_here(run)
    return run


@pytest.mark.parametrize(("state", "remedy"), [("finished", "rerun"), ("failed", "resume"), ("pending", "status"),
                                               ("running", "resume")])
def test_only_a_running_run_is_profiled(runs: Path, state: State, remedy: str) -> None:
    run = find_run("tiny", runs)
    run.claim_attempt()
    write_state(run, state)
    with pytest.raises(RunError, match=rf"only a running run can be profiled(.|\n)*drumbeat {remedy}"):
        profile(run, 5, "0")
    assert not run.attempt(0).profile.exists()


@pytest.mark.parametrize(("steps", "ranks", "message"), [(0, "0", "at least one step"), (1001, "0", "not too many"),
                                                         (5, "0,2", "the ranks of this run are 0 to 1"),
                                                         (5, "all", "--ranks 0,1"), (5, "-1", "0 to 1")])
def test_what_does_not_fit_is_refused(live: RunDir, steps: int, ranks: str, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        profile(live, steps, ranks)


def answer(attempt: Attempt) -> None:
    """What ranks do."""
    until(attempt.profile.exists)
    request = ProfileRequest.take(attempt.profile)
    assert request is not None
    assert (request.steps, request.ranks) == (5, (0, 1))
    attempt.trace(120, 1).touch()
    fields = PROFILE.as_json() | {"id": request.id}
    Profile.parse(fields).write(attempt.profiled(120))


def test_it_waits_for_its_own_profile(live: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    attempt = live.attempt(0)
    PROFILE.write(attempt.profiled(7))
    thread = threading.Thread(target=answer, args=(attempt,))
    thread.start()
    profile(live, 5, "1,0")
    thread.join()
    out = capsys.readouterr().out
    assert PROFILE.text in out
    assert "trace      none of rank 0: its log says why\n" in out
    assert f"trace      {attempt.trace(120, 1)}\n" in out


def test_two_requests_at_once_are_refused(live: RunDir) -> None:
    request = ProfileRequest(id="other", steps=5, ranks=(0,))
    request.write(live.attempt(0).profile)
    with pytest.raises(RunError, match="asked for a profile already"):
        profile(live, 5, "0")
    assert ProfileRequest.require(live.attempt(0).profile) == request


def test_a_run_that_ends_meanwhile(live: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drumbeat.launch.runs.profile.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("drumbeat.launch.runs.profile.time.sleep", lambda _: write_state(live, "stopped"))
    with pytest.raises(RunError, match="the attempt has ended before the profile did"):
        profile(live, 5, "0")
    assert not live.attempt(0).profile.exists()


def test_a_phase_that_has_ended(live: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = live.attempt(0)

    def end(seconds: float) -> None:
        if request := ProfileRequest.take(attempt.profile):
            replace(PROFILE, id=request.id, steps=0).write(attempt.profiled(120))

    monkeypatch.setattr("drumbeat.launch.runs.profile.time.sleep", end)
    with pytest.raises(RunError, match="the phase has ended before a step was measured"):
        profile(live, 5, "0")


def test_ranks_that_do_not_know_of_profiles(live: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    write_heartbeat(live, step=10)
    monkeypatch.setattr("drumbeat.launch.runs.profile.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("drumbeat.launch.runs.profile.TAKE_SECONDS", 0.0)
    monkeypatch.setattr("drumbeat.launch.runs.profile.time.sleep", lambda _: write_heartbeat(live, step=12))
    with pytest.raises(RunError, match=r"do not take the request(.|\n)*--new-code"):
        profile(live, 5, "0")
    assert not live.attempt(0).profile.exists()


@pytest.mark.slow
def test_a_running_run_of_two_ranks_has_the_weights_of_one_without_a_profile(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(tmp_path)
    words = ("tiny.yaml", "--procs", "2", "phases.head.epochs=12", "checkpoints.every_steps=null")
    drumbeat(tmp_path, *words)
    expected = Result.require(latest(tmp_path).result)
    drumbeat(tmp_path, *words, "--detach", "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}", "task.at=[30]",
             "task.how=wait")
    until(lambda: (tmp_path / "blown-0").exists())  # rank 0 waits in a step, so that the run does not end before
    attempt = latest(tmp_path).attempt(0)
    thread = threading.Thread(target=lambda: (until(attempt.profile.exists), (tmp_path / "go").touch()))
    thread.start()
    assert main(["profile", "tiny", "--steps", "3", "--ranks", "0,1", "--runs", str(tmp_path / "runs")]) == 0
    thread.join()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:7]] == ["rank", "0", "1", "median", "max"]
    assert [attempt.path / line.split("/")[-1] for line in lines if line.startswith("trace")] == [
        *attempt.path.glob("profile-*-rank0.json.gz"), *attempt.path.glob("profile-*-rank1.json.gz")]
    until(latest(tmp_path).result.exists)
    assert Result.require(latest(tmp_path).result).weights_sha256 == expected.weights_sha256

"""Processes beside a run: whose they are, when they end, and that nobody waits for them for long."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.launch.attempts import beside as module
from drumbeat.launch.attempts.beside import beside, commands
from drumbeat.launch.attempts.processes import descendants
from tests.processes import alive, until
from tests.runs import write_plan, write_state

UNTIL_THE_END = ("import os, sys, time; print(os.getpid(), os.getsid(0), os.nice(0), flush=True); os.read(0, 1)\n"
                 "while sys.argv[1:] and not os.path.exists(sys.argv[1]): time.sleep(0.01)\n"
                 "print('over', flush=True)")
"""A process that ends when its standard input does, or when a file exists after that."""


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "tiny" / "20260101-100000-aaaaa")


@pytest.fixture
def plan(run: RunDir) -> JobPlan:
    return write_plan(run, trackers=("mlflow", "own"), notify=("failed",))


def use(monkeypatch: pytest.MonkeyPatch, run: RunDir, *words: str) -> Path:
    """Makes a small program the only process beside the run. Returns its log."""
    log = run.trackers / "one.log"

    def one(*_: object) -> Iterator[tuple[list[str], Path]]:
        yield [sys.executable, "-c", UNTIL_THE_END, *words], log

    monkeypatch.setattr(module, "commands", one)
    return log


def test_one_for_each_tracker_and_one_for_notifications(run: RunDir, plan: JobPlan) -> None:
    write_state(run, "pending")
    found = list(commands(run, plan))
    assert [command[1:5] for command, _ in found[:2]] == [
        ["-m", "drumbeat.configs.importing", module.FORWARD, str(run.path)]] * 2
    assert [command[-1] for command, _ in found[:2]] == ["mlflow", "own"]
    assert found[2][0][1:4] == ["-m", module.NOTIFY, str(run.path)]
    assert float(found[2][0][4]) > 0  # since then it has been waiting
    assert [log.relative_to(run.path).as_posix() for _, log in found] == [
        "trackers/mlflow.log", "trackers/own.log", "notifications/log"]
    write_state(run, "running")
    assert [*commands(run, plan)][2][0][4] == "0.0"


def test_it_is_nobodys_child_and_ends_after_the_run(monkeypatch: pytest.MonkeyPatch, run: RunDir,
                                                    plan: JobPlan) -> None:
    log = use(monkeypatch, run)
    with beside(run, plan, wait=True):
        until(lambda: log.exists() and log.read_text())
        process, session, niceness = map(int, log.read_text().split())
        assert process not in descendants(os.getpid())
        assert session != os.getsid(0)
        assert niceness >= module.NICENESS
        for number in module.UNAFFECTED:
            os.kill(process, number)
        assert alive(process)
    assert log.read_text().endswith("over\n")  # it was waited for
    until(lambda: not alive(process))


@pytest.mark.parametrize("wait", [True, False])
def test_a_job_does_not_wait_for_long(monkeypatch: pytest.MonkeyPatch, run: RunDir, plan: JobPlan, tmp_path: Path,
                                      wait: bool) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.01)
    log = use(monkeypatch, run, str(tmp_path / "go"))
    with beside(run, plan, wait=wait):
        until(lambda: log.exists() and log.read_text())
    assert "over" not in log.read_text()
    (tmp_path / "go").touch()
    until(lambda: "over" in log.read_text())


def test_it_ends_when_the_launcher_is_killed(monkeypatch: pytest.MonkeyPatch, run: RunDir, plan: JobPlan) -> None:
    log = use(monkeypatch, run)
    if (child := os.fork()) == 0:
        with beside(run, plan, wait=True):
            signal.pause()
    until(lambda: log.exists() and log.read_text())
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: "over" in log.read_text())


def test_what_cannot_be_started_costs_the_run_nothing(run: RunDir, plan: JobPlan,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    run.trackers.write_text("a file")
    with beside(run, plan, wait=True):
        pass
    assert capsys.readouterr().out.startswith("warning: trackers and notifications cannot be started: ")

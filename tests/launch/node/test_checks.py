"""What a node checks before its ranks start: it says what the node lacks, and a site's check cannot hang or hurt."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from drumbeat.configs.errors import Fault
from drumbeat.configs.load import load
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import NodeUp
from drumbeat.configs.site import Site
from drumbeat.launch.node import checks
from drumbeat.launch.node.checks import Finding, check_node, find, missing, run_check
from tests.processes import alive, until
from tests.runs import write_plan
from tests.tiny import write_config


def never() -> bool:
    return False


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n7")


@pytest.mark.parametrize(("command", "kind", "message"), [
    ("echo fine; exit 3", "failed", "ended with code 3: fine"),
    ("echo first; echo; echo 'GPU 1 is lost' >&2; echo; exit 1", "failed", "ended with code 1: GPU 1 is lost"),
    ("exit 2", "failed", "ended with code 2"),
    ("kill -SEGV $$", "failed", "was killed (SIGSEGV)"),
    ("printf 'red \\033[31m\\377'; false", "failed", "ended with code 1: red \\x1b[31m\ufffd"),
    ("yes | head -c 5000000; echo; printf '%0300d' 7; exit 4", "failed", f"ended with code 4: {'0' * 200}"),
    ("read line || exit 5", "failed", "ended with code 5"),
])
def test_a_check_that_fails(command: str, kind: str, message: str) -> None:
    assert run_check(command, never) == Finding(kind, f"the node check on n7 {message}")  # type: ignore[arg-type]


def test_a_check_that_does_not_exist_says_nothing_about_the_node() -> None:
    found = run_check("no-such-program --all", never)
    assert found
    assert found.kind == "missing"
    assert found.message.startswith("the node check cannot be run on n7: it ended with code 127: ")
    assert "no-such-program" in found.message


def test_a_shell_that_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bash").write_bytes(b"\0")
    (tmp_path / "bash").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run_check("true", never) == Finding("failed", "the node check cannot be run on n7: Exec format error")


@pytest.mark.parametrize("command", ["true", "echo all is well | grep -q well", "exec >&- 2>&-; sleep 0.1"])
def test_a_check_that_passes(command: str) -> None:
    assert run_check(command, never) is None


def test_a_check_that_hangs_is_killed_with_its_processes(tmp_path: Path) -> None:
    command = f"echo asking the driver; (sleep 300 & echo $! > {tmp_path}/pid; wait)"
    assert run_check(command, never) == Finding(
        "failed", "the node check on n7 took longer than 5 s: asking the driver")
    until(lambda: not alive(int((tmp_path / "pid").read_text())), seconds=5)


def test_what_a_check_leaves_running_is_killed_and_not_waited_for(tmp_path: Path) -> None:
    began = time.monotonic()
    assert run_check(f"sleep 300 & echo $! > {tmp_path}/pid", never) is None
    assert time.monotonic() - began < 300
    until(lambda: not alive(int((tmp_path / "pid").read_text())), seconds=5)


def test_output_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CHECK_SECONDS", 0.5)
    assert run_check("yes", never) == Finding("failed", "the node check on n7 took longer than 0.5 s: y")


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM], ids=lambda number: number.name)
def test_signals_of_slurm_do_not_fail_a_check(number: signal.Signals) -> None:
    """Under ProctrackType=linuxproc SLURM sends the job's signals to each process."""
    assert run_check(f"kill -{number.name.removeprefix('SIG')} $$; true", never) is None


def prepared(place: Path, *assignments: str, **fields: object) -> tuple[RunDir, JobPlan]:
    """A run of the tiny experiment that could start."""
    run = RunDir(place / "runs" / "tiny" / "20260101-000000-abcde")
    run.path.mkdir(parents=True)
    code = run.path / "code" / "lab"
    code.mkdir(parents=True)
    write_text(run.config, load(write_config(place), assignments).as_yaml())
    environment = {"PYTHONPATH": f"{code}{os.pathsep}/nowhere/of/the/user"}
    return run, write_plan(run, **{"environment": environment, "folder": str(place), **fields})


def test_nothing_is_missing(tmp_path: Path) -> None:
    run, plan = prepared(tmp_path)
    assert missing(run, plan) == []
    assert find(run, plan, never) is None


def test_all_that_is_missing_is_on_one_screen(tmp_path: Path) -> None:
    pictures = ["data.train={_target_: drumbeat.data.ImageFolder, root: /nowhere/pictures}"]
    run, plan = prepared(tmp_path, *pictures, python="/nowhere/bin/python", folder="/nowhere/home")
    (run.path / "code" / "lab").rmdir()
    assert [fault.what for fault in missing(run, plan)] == [
        "Python: /nowhere/bin/python does not exist",
        "the folder in which the command was typed: /nowhere/home does not exist",
        f"the run's copy of the code: {run.path}/code/lab does not exist", "/nowhere/pictures does not exist"]
    found = find(run, plan, never)
    assert found
    assert (found.kind, found.message) == (
        "missing", "n7 lacks what the ranks need: Python: /nowhere/bin/python does not exist, and 3 more")
    assert found.screen.startswith("on n7, before its ranks start:\n")
    assert found.screen.count("error: ") == 4
    assert len(found.screen.splitlines()) <= 24


def test_the_check_runs_only_if_nothing_is_missing(tmp_path: Path) -> None:
    run, plan = prepared(tmp_path, site=Site(node_check=f"touch {tmp_path}/checked; exit 3"), python="/nowhere/python")
    found = find(run, plan, never)
    assert found
    assert found.kind == "missing"
    assert not (tmp_path / "checked").exists()
    assert find(run, JobPlan(**vars(plan) | {"python": sys.executable}), never) == Finding(
        "failed", "the node check on n7 ended with code 3")


def test_faults_of_the_config_are_left_to_the_ranks(tmp_path: Path) -> None:
    run, plan = prepared(tmp_path)
    run.config.write_text("name: [")
    assert missing(run, plan) == []
    run.config.unlink()
    assert missing(run, plan) == []


def test_a_file_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an open() of a pipe that nobody writes to, which waits in the kernel as well."""
    os.mkfifo(tmp_path / "pipe")

    def waits(run: RunDir, plan: JobPlan) -> list[Fault]:
        (tmp_path / "pipe").read_text()
        return []

    monkeypatch.setattr(checks, "FILES_SECONDS", 0.2)
    monkeypatch.setattr(checks, "missing", waits)
    run, plan = prepared(tmp_path)
    assert find(run, plan, never) == Finding(
        "failed", "n7 waits for a file server: the files of the run or its data do not answer within 0.2 s")
    (tmp_path / "pipe").write_text("")


def test_a_path_that_the_disk_refuses_is_missing_and_the_folder_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run, plan = prepared(tmp_path, python=f"/{'x' * 300}", folder=str(tmp_path / "empty"))
    found = find(run, plan, never)
    assert found
    assert (found.kind, found.message) == (
        "missing", f"n7 lacks what the ranks need: Python: /{'x' * 300} cannot be read: File name too long")


def test_an_error_of_the_look_itself_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(run: RunDir, plan: JobPlan) -> list[Fault]:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(checks, "missing", fails)
    run, plan = prepared(tmp_path)
    assert find(run, plan, never) == Finding(
        "missing", "n7 cannot look for what the ranks need: OSError: [Errno 116] Stale file handle")


def test_a_stop_ends_the_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SLURM kills the job soon."""
    waiting = threading.Event()
    run, plan = prepared(tmp_path, site=Site(node_check=f"touch {tmp_path}/begun; sleep 300"))
    monkeypatch.setattr(checks, "CHECK_SECONDS", 300.0)
    assert find(run, plan, (tmp_path / "begun").exists) is None
    monkeypatch.setattr(checks, "missing", lambda run, plan: waiting.wait())
    assert find(run, plan, lambda: True) is None
    waiting.set()


def test_a_finding_is_in_the_log_of_the_node_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, plan = prepared(tmp_path, site=Site(node_check="echo GPU 1 is lost; exit 3"))
    attempt = run.claim_attempt()
    found = check_node(run, plan, attempt, 2, never)
    assert found
    assert NodeUp.require(attempt.node_up(2)).host == "n7"
    assert capsys.readouterr().out == attempt.node_log(2).read_text() == f"{found.message}\n"

"""Reporting events to a real server on this machine, through Apprise."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.runs import notify
from drumbeat.launch.runs.notify import watch
from drumbeat.launch.runs.status import with_final_state
from tests.processes import alive, until
from tests.runs import write_heartbeat, write_job, write_plan, write_state

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of services that Apprise imports

SECRET = "hush-hush-1234"


class Server(HTTPServer):
    """Keeps what is posted, and accepts it or not."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[dict[str, str]] = []
        self.code = 200


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append({**content, "authorization": self.headers["Authorization"]})
        self.send_response(self.server.code)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server, whose address is in MY_ADDRESS, without pauses between tries."""
    monkeypatch.setattr(notify, "PAUSES", (0.0, 0.0))
    found = Server()
    monkeypatch.setenv("MY_ADDRESS", f"json://me:{SECRET}@127.0.0.1:{found.server_port}/")
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.shutdown()
    found.server_close()
    thread.join()


@pytest.fixture
def reported(run: RunDir) -> RunDir:
    """A run with addresses."""
    write_plan(run, notify=("finished", "failed", "paused"))
    write_job(run, id="1", time=7.0)
    run.config.write_text(f"{run.config.read_text()}\nnotify: {{to: [MY_ADDRESS]}}\n")
    return run


def states(*changes: Callable[[], object]) -> Callable[[], bool]:
    """Changes the run before each look at it; then the launcher is gone."""
    rest = iter(changes)

    def is_gone() -> bool:
        change = next(rest, None)
        if change:
            change()
        return change is None

    return is_gone


def test_each_event_is_reported_once(reported: RunDir, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Also across requeues, in other processes."""
    run = reported
    paused = lambda: write_heartbeat(run, step=12, pause_reason="the disk is full")  # noqa: E731
    watch(run, 0.0, states(paused, paused, lambda: write_state(run, "preempted")))
    watch(run, 0.0, states(lambda: write_state(run, "running"), paused, lambda: write_state(
        run, "finished", "finished at step 60")))
    watch(run, 0.0, states())
    assert [one["title"] for one in server.got] == ["tiny is paused", "tiny has finished"]
    assert "the disk is full" in server.got[0]["message"]
    assert "verdict         finished at step 60" in server.got[1]["message"]
    assert {one["authorization"] for one in server.got} != {None}
    output = capsys.readouterr().out
    assert output.count("MY_ADDRESS has accepted it") == 2
    assert SECRET not in output
    assert not [file for file in run.path.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes()]


def test_an_address_that_refuses_is_a_line_in_the_log(reported: RunDir, server: Server,
                                                      capsys: pytest.CaptureFixture[str]) -> None:
    server.code = 500
    write_state(reported, "failed", "rank 1 on n1 was killed")
    watch(reported, 0.0, states())
    assert [one["title"] for one in server.got] == ["tiny has failed"] * 3
    assert capsys.readouterr().out.endswith("failed-0-7: MY_ADDRESS has not accepted it\n")


def test_the_command(reported: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "said"
    reported.config.write_text(reported.config.read_text().replace(
        "to: [MY_ADDRESS]", f"command: 'echo $DRUMBEAT_EVENT, $DRUMBEAT_TITLE, $DRUMBEAT_RUN > {file}; exit 3'"))
    write_state(reported, "failed")
    watch(reported, 0.0, states(), seen=True)
    assert not file.exists()
    (reported.notifications / "failed-0-7").unlink()
    watch(reported, 0.0, states())
    assert file.read_text() == f"failed, tiny has failed, {reported.path}\n"
    assert "failed-0-7: the command ended with exit code 3" in capfd.readouterr().out


def test_a_command_ends_with_all_that_it_has_started(reported: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(notify, "COMMAND_SECONDS", 0.5)
    reported.config.write_text(reported.config.read_text().replace(
        "to: [MY_ADDRESS]", f"command: 'sleep 600 & echo $! > {tmp_path}/process; wait'"))
    write_state(reported, "failed")
    watch(reported, 0.0, states())
    assert "failed-0-7: the command was killed after 0.5 s" in capfd.readouterr().out
    until(lambda: not alive(int((tmp_path / "process").read_text())))


def test_a_run_that_was_killed_with_its_launcher(reported: RunDir, server: Server) -> None:
    """The process beside it sees that, as no process of the run is left."""
    write_state(reported, "running")
    watch(reported, 0.0, states(lambda: None))
    assert [one["title"] for one in server.got] == ["tiny has failed"]
    assert "its launcher was killed, or its machine failed" in server.got[0]["message"]


def test_the_first_command_that_looks_reports_what_nobody_could(reported: RunDir, server: Server) -> None:
    """In a real process of its own; and nobody does it again."""
    write_state(reported, "running")
    assert with_final_state(View.read(reported)).state == "failed"
    until(lambda: server.got)
    assert [one["title"] for one in server.got] == ["tiny has failed"]
    assert with_final_state(View.read(reported)).state == "failed"
    assert os.listdir(reported.notifications) == ["failed-0-7"]


def test_one_process_reports_several_runs(reported: RunDir, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [reported, RunDir(reported.path.with_name("20260102-100000-bbbbb"))]
    write_state(reported, "failed")
    shutil.copytree(*(run.path for run in runs))
    monkeypatch.setattr(sys, "argv", ["notify", str(runs[0].path), "seen", str(runs[1].path)])
    monkeypatch.setattr(notify, "outlive_the_log", lambda: None)
    notify.main()
    signal.alarm(0)
    logging.disable(logging.NOTSET)
    assert [one["title"] for one in server.got] == ["tiny has failed"] * 2

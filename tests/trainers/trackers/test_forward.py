"""The process that sends a run to a tracker: what it sends, what it records, and that it costs the run nothing."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result, Status
from drumbeat.configs.run.tracker_records import Forwarded
from drumbeat.trainers.trackers import forward
from tests.processes import until
from tests.tiny import drumbeat, latest, write_config
from tests.trainers.trackers.made import CURVES, Listed, write_attempt, write_run

LISTED = "tests.trainers.trackers.made.Listed"


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pauses."""
    monkeypatch.setattr(forward, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(forward, "POLL_SECONDS", 0.0)


def test_a_tracker_that_refuses_gets_everything_later(
        run: RunDir, tmp_path: Path, at_once: None, monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hush-hush")
    file = tmp_path / "rows.jsonl"
    write_run(run, {"_target_": LISTED, "file": str(file), "fails": 3})
    write_attempt(run, 0, 0, 60)
    seen: list[Forwarded] = []

    def is_over() -> bool:
        seen.append(Forwarded.require(run.tracker("listed")))
        return True

    forward.Forwarder(run, "listed", is_over).forward()
    assert seen[0].error == "ConnectionError: https://***@host refuses"
    assert seen[0].since > 0
    rows = Listed.rows(file)
    assert {tag: [row["step"] for row in rows if tag in row.get("values", {})] for tag in CURVES} == CURVES
    assert [row["number"] for row in rows] == list(range(len(rows)))
    lines = list(map(json.loads, file.read_text().splitlines()))
    assert lines[0]["config"]["model.api_key"] == "***"
    assert lines[0]["links"] == {"folder": str(run.path)}
    assert lines[-1] == {"end": "running"}
    found = Forwarded.require(run.tracker("listed"))
    assert (found.state, found.rows, found.step, found.error, found.since) == ("done", len(rows), 60, "", 0.0)
    output = capsys.readouterr().out
    assert output.count("listed failed, next try in 0 s: ConnectionError") == 3
    assert "hush-hush" not in output


def test_what_comes_later_is_sent_as_well(run: RunDir, tmp_path: Path, at_once: None) -> None:
    file = tmp_path / "rows.jsonl"
    write_run(run, {"_target_": LISTED, "file": str(file)})
    looks = iter(range(100))

    def is_over() -> bool:
        number = next(looks)
        if number < 4:
            write_attempt(run, number, max(0, 15 * number - 4), 15 * (number + 1))
        return number == 4

    forward.Forwarder(run, "listed", is_over).forward()
    rows = Listed.rows(file)
    assert {tag: [row["step"] for row in rows if tag in row.get("values", {})] for tag in CURVES} == CURVES


def test_a_full_disk_of_the_log_does_not_end_the_process(run: RunDir, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_run(run, {"_target_": LISTED, "file": str(file), "fails": 1})
    write_attempt(run, 0, 0, 60)
    run.write_status("finished", attempt=-1)
    with open("/dev/full", "w") as full:
        subprocess.run([sys.executable, "-m", "drumbeat.trainers.trackers.forward", str(run.path), "listed"],
                       stdin=subprocess.DEVNULL, stdout=full, stderr=full, check=True,
                       env=os.environ | {"PYTHONPATH": f"{ROOT}/src:{ROOT}"})
    assert is_done(run)
    assert Listed.rows(file)[-1]["step"] == 60


def test_one_process_at_a_time(run: RunDir) -> None:
    """The second waits for the lock of the first, however that ends."""
    write_run(run, "mlflow")
    program = ("import sys; from pathlib import Path; from drumbeat.configs.run.folder import RunDir\n"
               "from drumbeat.trainers.trackers.forward import only_one\n"
               "only_one(RunDir(Path(sys.argv[1])), 'mlflow'); print('mine', flush=True); sys.stdin.read()")
    command = [sys.executable, "-c", program, str(run.path)]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}/src"}
    first, second = (subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
                     for _ in range(2))
    first_out, second_out = first.stdout, second.stdout
    assert first_out and second_out
    os.set_blocking(first_out.fileno(), False)
    os.set_blocking(second_out.fileno(), False)
    found: dict[subprocess.Popen[bytes], bytes] = {first: b"", second: b""}

    def said() -> list[subprocess.Popen[bytes]]:
        found[first] += first_out.read() or b""
        found[second] += second_out.read() or b""
        return [process for process, text in found.items() if text == b"mine\n"]

    until(said)
    (holder,) = said()
    holder.kill()
    until(lambda: len(said()) == 2)
    for process in (first, second):
        process.kill()
        process.communicate()


def test_no_torch() -> None:
    program = ("import sys\nimport drumbeat.trainers.trackers.forward\nfrom drumbeat.trainers.trackers import MLflow\n"
               "from tensorboard.compat.proto.event_pb2 import Event\n"
               "print(*sorted({'torch', 'torchvision', 'mlflow', 'wandb', 'trackio'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"PYTHONPATH": f"{ROOT}/src"})
    assert done.stdout.split() == []


def is_done(run: RunDir) -> bool:
    found = Forwarded.read(run.tracker("listed"))
    return found is not None and found.state == "done"


@pytest.mark.slow
def test_the_process_stays_for_all_attempts_of_a_launcher(tmp_path: Path) -> None:
    """A rank is killed in the middle: the next attempt computes some steps again, and each is sent once."""
    config, file = write_config(tmp_path), tmp_path / "rows.jsonl"
    drumbeat(tmp_path, str(config), "--procs", "1", f"tracking.to=[{{_target_: {LISTED}, file: {file}}}]",
             "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}", "task.at=[60]")
    run = latest(tmp_path)
    assert run.newest_number() == 1
    until(lambda: is_done(run), 300)
    curve = [row["step"] for row in Listed.rows(file) if "train/loss" in row.get("values", {})]
    assert curve == list(range(2, Result.require(run.result).steps + 1, 2))
    assert file.with_suffix(".tries").read_text() == "x"
    assert [line for line in map(json.loads, file.read_text().splitlines()) if "end" in line] == [{"end": "finished"}]


@pytest.mark.slow
def test_a_run_sends_its_curves_and_a_tracker_that_hangs_costs_it_nothing(tmp_path: Path) -> None:
    config, file = write_config(tmp_path), tmp_path / "rows.jsonl"
    drumbeat(tmp_path, str(config), "--debug")
    alone = Result.require(latest(tmp_path).result)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        trackers = (f"tracking.to=[{{_target_: {LISTED}, file: {file}}}, "
                    f"{{_target_: tests.trainers.trackers.made.Silent, file: {tmp_path}/none, port: {port}}}]")
        drumbeat(tmp_path, str(config), "--debug", trackers)
        run = latest(tmp_path)
        assert Result.require(run.result).weights_sha256 == alone.weights_sha256
        connection, _ = server.accept()  # it waits for an answer, and the run has ended
        assert Status.require(run.status).state == "finished"
        assert not run.tracker("silent").exists()
        until(lambda: is_done(run), 300)
        for process in Path("/proc").glob("[0-9]*"):
            arguments = (process / "cmdline").read_bytes().split(b"\0") if (process / "cmdline").exists() else []
            if {str(run.path).encode(), b"silent"} <= {*arguments}:
                os.kill(int(process.name), signal.SIGKILL)
        connection.settimeout(60)
        assert connection.recv(1) == b""
        connection.close()
    rows = Listed.rows(file)
    curve = [row["step"] for row in rows if "train/loss" in row.get("values", {})]
    assert curve == list(range(2, alone.steps + 1, 2))
    assert [line for line in map(json.loads, file.read_text().splitlines()) if "end" in line] == [{"end": "finished"}]
    assert any("pictures" in row for row in rows)

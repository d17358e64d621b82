"""The run's folder: where things are, and what happens when several processes write at once, or one dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.folder import RunDir, read_json, write_json, write_text

CLAIM = """
import sys
from pathlib import Path
from drumbeat.configs.run.folder import RunDir
run = RunDir(Path(sys.argv[1]))
sys.stdin.read(1)  # all start at once
print(*(run.claim_attempt().number for _ in range(25)))
"""

WRITE_FOREVER = """
import sys
from pathlib import Path
from drumbeat.configs.run.folder import write_json
print("writing", flush=True)
while True:
    for letter in "ab":
        write_json(Path(sys.argv[1]), {"all": letter * 100_000})
"""


def test_a_new_run_has_a_time_and_letters_of_its_own(tmp_path: Path) -> None:
    runs = [RunDir.new(tmp_path, "tiny", now=0.0) for _ in range(20)]
    assert len({run.id for run in runs}) == 20
    stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(0.0))
    assert all(run.path.parent == tmp_path / "tiny" and run.id.startswith(f"{stamp}-") for run in runs)
    assert not any(tmp_path.iterdir())


def test_relative_runs_become_absolute() -> None:
    assert RunDir.new(Path("runs"), "tiny").path.is_absolute()


def test_attempts_are_numbered_on(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert run.newest_attempt() is None
    assert [run.claim_attempt().number for _ in range(3)] == [0, 1, 2]
    run.attempt(1200).path.mkdir()
    assert run.newest_attempt() == run.attempt(1200)
    assert run.claim_attempt().number == 1201


def test_no_two_processes_claim_the_same_attempt(tmp_path: Path) -> None:
    claimers = [subprocess.Popen([sys.executable, "-c", CLAIM, str(tmp_path)], stdin=subprocess.PIPE, text=True,
                                 stdout=subprocess.PIPE, cwd=ROOT) for _ in range(4)]
    for claimer in claimers:
        assert claimer.stdin is not None
        claimer.stdin.write("!")
        claimer.stdin.close()
    claimed: list[int] = []
    for claimer in claimers:
        assert claimer.stdout is not None
        mine = list(map(int, claimer.stdout.read().split()))
        assert mine == sorted(mine)
        claimed += mine
        claimer.stdout.close()
        assert claimer.wait() == 0
    assert sorted(claimed) == list(range(100))


def test_a_reader_never_sees_half_a_file_not_even_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    with subprocess.Popen([sys.executable, "-c", WRITE_FOREVER, str(path)], cwd=ROOT, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        until = time.monotonic() + 0.5
        seen = set()
        while time.monotonic() < until:
            if path.exists():
                text = json.loads(path.read_text())["all"]
                assert text in ("a" * 100_000, "b" * 100_000)
                seen.add(text[0])
        os.kill(writer.pid, signal.SIGKILL)
    assert seen == {"a", "b"}
    assert len(json.loads(path.read_text())["all"]) == 100_000


def test_writing_leaves_nothing_else_behind(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "text")
    write_text(tmp_path / "a", "other")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "other"


def test_what_is_not_there_or_damaged_reads_as_empty(tmp_path: Path) -> None:
    assert read_json(tmp_path / "none") == {}
    (tmp_path / "bad").write_text('{"a": ')
    assert read_json(tmp_path / "bad") == {}


def test_status_keeps_what_is_not_changed_and_is_stamped(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_status(state="running", step=3)
    run.write_status(step=4)
    status = read_json(run.status)
    assert (status["state"], status["step"]) == ("running", 4)
    assert abs(status["time"] - time.time()) < 10


def test_the_first_reason_to_stop_stands(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    attempt.ask_to_stop("stopped")
    attempt.ask_to_stop("time limit")
    assert read_json(attempt.stop)["reason"] == "stopped"


def test_errors_of_ranks_come_in_the_order_they_happened(tmp_path: Path) -> None:
    attempt = RunDir(tmp_path).claim_attempt()
    write_json(attempt.error(0), {"rank": 0, "time": 2.0})
    write_json(attempt.error(11), {"rank": 11, "time": 1.0})
    assert [error["rank"] for error in attempt.errors()] == [11, 0]

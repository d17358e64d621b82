"""The run folder: its paths, and several processes that write at the same time, or die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from drumbeat.configs.layers import ROOT
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Status

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
from drumbeat.configs.run.files import write_json
print("writing", flush=True)
while True:
    for letter in "ab":
        write_json(Path(sys.argv[1]), {"all": letter * 100_000})
"""


def test_a_new_run_has_a_time_and_letters_of_its_own(tmp_path: Path) -> None:
    runs = [RunDir.new(tmp_path, "tiny", now=0.0) for _ in range(20)]
    assert len({run.id for run in runs}) == 20
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(0.0))
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


def test_a_copy_of_an_attempt_is_no_attempt(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for name in ("000", "001", "001 (copy)", "7", "0002.bak", "002.tar"):
        (run.attempts / name).mkdir(parents=True)
    assert run.all_attempts() == [run.attempt(0), run.attempt(1)]
    assert run.claim_attempt() == run.attempt(2)


def test_an_attempt_that_was_superseded_does_not_change_the_status(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.claim_attempt()
    assert run.write_status("running", attempt=0)
    run.claim_attempt()
    assert run.write_status("finished", attempt=1, verdict="finished")
    before = run.status.read_bytes()
    assert not run.write_status("failed", attempt=0, verdict="the node launcher failed")
    assert run.status.read_bytes() == before
    assert (run.is_superseded(0), run.is_superseded(1)) == (True, False)


def test_a_status_says_which_attempt_it_is_of_and_when(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.write_status("pending", attempt=-1)
    status = Status.require(run.status)
    assert (status.state, status.attempt, status.verdict) == ("pending", -1, "")
    assert abs(status.time - time.time()) < 10

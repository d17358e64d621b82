"""Runs in a table and as JSON, and why one is not at work."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir, write_json
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.why import REASONS, reason_in_words, why

IDS = [f"2026010{day}-100000-{letter * 5}" for day, letter in ((1, "a"), (2, "b"), (3, "c"), (4, "d"))]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """One run that has finished, one that runs, one that is silent, one that waits in the queue."""
    monkeypatch.chdir(tmp_path)
    found = []
    for name, number in zip(("tiny", "tiny", "a_name_that_is_quite_long", "other"), IDS, strict=True):
        run = RunDir(tmp_path / "runs" / name / number)
        run.path.mkdir(parents=True)
        write_json(run.plan, {})
        write_json(run.job, {"where": "local", "id": "17", "host": socket.gethostname()})
        found.append(run)
    progress = {"step": 600, "steps": 1000, "loss": 0.51234, "samples_per_second": 1234.5, "eta_seconds": 3725.0}
    write_json(found[0].status, progress | {"state": "finished", "step": 1000, "time": 1.0})
    write_json(found[0].result, {"test": {"loss": 0.25, "accuracy": 0.9}})
    write_json(found[1].status, progress | {"state": "running", "time": time.time()})
    write_json(found[1].job, {"where": "debug", "host": socket.gethostname(), "process": os.getpid()})
    write_json(found[2].job, {"where": "slurm", "id": "4710", "host": "login"})
    write_json(found[2].status, progress | {"state": "running", "loss": float("nan"), "time": time.time() - 600})
    write_json(found[3].status, {"state": "pending", "time": time.time()})
    write_json(found[3].job, {"where": "slurm", "id": "4711", "host": "login"})
    return found


TABLE = """\
run                    name                       state         where     done    loss  samples/s      eta
20260104-100000-ddddd  other                      pending       job 4711
20260103-100000-ccccc  a_name_that_is_quite_long  silent 10:00  job 4710   60%     nan      1,234  1:02:05
20260102-100000-bbbbb  tiny                       running       debug      60%  0.5123      1,234  1:02:05
20260101-100000-aaaaa  tiny                       finished      here      100%  0.2500
"""


def test_a_pipe_gets_plain_text(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert re.sub(r"silent 10:0\d", "silent 10:00", capsys.readouterr().out) == TABLE


def test_a_terminal_gets_a_table_that_fits(runs: list[RunDir]) -> None:
    """Whose first column is enough to name a run by."""
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-m", "drumbeat", "ls"], stdout=theirs, check=True, stderr=theirs,
                   env=os.environ | {"COLUMNS": "80", "TERM": "xterm"})
    os.close(theirs)
    said = os.read(ours, 100_000).decode()
    os.close(ours)
    plain = "".join(part.partition("m")[2] if number else part for number, part in enumerate(said.split("\x1b[")))
    lines = [line.rstrip() for line in plain.splitlines()]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == ["run", "ddddd", "ccccc", "bbbbb", "aaaaa"]
    assert re.fullmatch(r"ccccc  a_name_\w+…  silent 10:\d\d  job 4710   60%     nan      1,234  1:02:05", lines[2])
    assert "\x1b[32mrunning" in said
    assert main(["status", "ccccc"]) == 0


def test_the_newest_first_and_no_more_than_a_screen(runs: list[RunDir], capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drumbeat.launch.runs.listing.MOST", 3)
    assert main(["ls"]) == 0
    output = capsys.readouterr()
    assert (len(output.out.splitlines()), output.err) == (4, "... and 1 older: --all\n")
    assert main(["ls", "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert main(["ls", "--runs", "elsewhere"]) == 0
    assert capsys.readouterr().err == "no runs in elsewhere\n"


def test_programs_get_json(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [run["id"] for run in found] == IDS[::-1]
    assert found[1]["loss"] is None
    assert main(["status", "aaaaa", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known == found[3]
    assert (known["state"], known["result"]["test"]["accuracy"], known["folder"]) == (
        "finished", 0.9, str(runs[0].path))


def queue(folder: Path, script: str) -> str:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "squeue").chmod(0o755)
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


def test_why_a_job_waits(runs: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own job, and the one that is to follow it, found by the run's id in their comments; not those of others."""
    monkeypatch.setenv("PATH", queue(tmp_path, f"""\
echo '4711|PENDING|Resources|2026-01-05T06:07:08|gpu|{IDS[3]}'
echo '4712|PENDING|PartitionTimeLimit|N/A|gpu|{IDS[3]}'
echo '99|PENDING|Priority|N/A|gpu|other'"""))
    monkeypatch.setattr("drumbeat.launch.runs.find.program", lambda name: name)
    assert why(runs[3]) == f"""\
run         {IDS[3]}
state       pending
job         4711, pending in partition gpu
why         Resources: it is next, and waits for nodes to become free
start       expected at 2026-01-05 06:07:08
do          Wait; or ask for less: fewer --nodes or --gpus, a shorter
            time_minutes.
job         4712, pending in partition gpu
why         PartitionTimeLimit: it asks for more time than a job in its
            partition may have
do          drumbeat cancel {IDS[3]}, then ask for less in the
            profile: time_minutes. A run that needs longer is queued again by
            itself. sinfo -o '%P %l' shows the limits."""


def test_why_where_slurm_says_nothing(runs: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", queue(tmp_path, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; "
                                               "exit 1"))
    assert "why         SLURM does not answer: slurm_load_jobs error: Unable to contact" in why(runs[3])
    monkeypatch.setenv("PATH", queue(tmp_path, ""))
    assert "job         4711, of which SLURM knows nothing any more\n" in why(runs[3])


def test_why_of_a_run_that_waits_for_its_disk(runs: list[RunDir]) -> None:
    write_json(runs[2].job, {"where": "local", "id": "17", "host": "elsewhere"})
    write_json(runs[2].status, {"state": "paused", "verdict": "the disk is full", "time": time.time()})
    assert why(runs[2]).splitlines()[3:] == [
        "why         the disk is full", "do          Make room, or bring the disk back: the run goes on by itself."]


def test_why_of_runs_that_are_no_jobs(runs: list[RunDir]) -> None:
    assert "why         it has come to its end" in why(runs[0])
    write_json(runs[2].job, {"where": "local", "id": "17", "host": socket.gethostname()})
    assert "why         nothing of it is at work any more, and it was last heard of 10:0" in why(
        runs[2]).replace("\n            ", " ")
    runs[1].write_status(state="failed", verdict="rank 1 on n1 was killed")
    assert "why         rank 1 on n1 was killed\ndo          Go on with it: " in why(runs[1])
    write_json(runs[2].job, {"where": "debug", "host": socket.gethostname(), "process": os.getpid()})
    assert "nothing was heard of it for 10:0" in why(runs[2])


@pytest.mark.parametrize(("reason", "words"), [
    ("QOSGrpCpuLimit", "all jobs of its QOS together may have only so many cores"),
    ("AssocMaxSubmitJobLimit", "its account lets one user have only so many jobs in the queue"),
    ("QOSMaxNodePerJobLimit", "it asks for more nodes than its QOS lets a job have"),
    ("ReqNodeNotAvail, UnavailableNodes:n1", "a node that it needs is down, drained or reserved (UnavailableNodes:n1)"),
    ("(Nodes required for job are DOWN)", "SLURM calls it Nodes required for job are DOWN"),
    ("launch_failed_requeued_held", "it could not be started on its node, and SLURM holds it"),
])
def test_reasons_in_words(reason: str, words: str) -> None:
    assert reason_in_words(reason)[0] == words


def test_a_reason_that_nobody_knows() -> None:
    assert "JOB" not in reason_in_words("Weather")[1], "which would be taken for the job's id"


def test_every_reason_has_words_and_a_way_on() -> None:
    assert all(words and remedy for words, remedy in REASONS.values())


def test_a_run_of_this_machine_that_is_gone_has_failed(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    write_json(runs[2].job, {"where": "local", "id": "17", "host": socket.gethostname()})
    assert main(["ls"]) == 0
    assert re.search(r"a_name_that_is_quite_long +failed +here +60% ", capsys.readouterr().out)

"""Runs in a table and as JSON, and why a run is not running."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.view import View
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.status import status_text, with_final_state
from drumbeat.launch.runs.why import why
from drumbeat.launch.slurm.reasons import REASONS, explain_reason
from tests.runs import AS_ANOTHER, shared_folder, write_heartbeat, write_job, write_plan, write_state

IDS = [f"2026010{day}-100000-{letter * 5}" for day, letter in ((1, "a"), (2, "b"), (3, "c"), (4, "d"))]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunDir]:
    """A finished run, a running one, one without a recent heartbeat, and one in the queue."""
    monkeypatch.chdir(tmp_path)
    found = []
    for name, number in zip(("tiny", "tiny", "a_name_that_is_long", "other"), IDS, strict=True):
        run = RunDir(tmp_path / "runs" / name / number)
        write_plan(run)
        write_job(run, id="17", host=socket.gethostname())
        found.append(run)
    for run, step, loss, ago, monitor, best in zip(
            found[:3], (1000, 600, 600), (0.4, 0.51234, float("nan")), (9e6, 0, 600),
            ("accuracy", "balanced_accuracy", "loss"), (0.875, 0.75, 1.25), strict=True):
        write_heartbeat(run, step=step, steps=1000, loss=loss, samples_per_second=1234.5, eta_seconds=3725.0, ago=ago,
                        monitor=monitor, best=best)
    write_state(found[0], "finished", ago=9e6)
    Result(steps=1000, samples_seen=0, overshoot=0, test={"loss": 0.25, "accuracy": 0.9}).write(found[0].result)
    write_state(found[1], "running")
    write_job(found[1], "debug", host=socket.gethostname(), pid=os.getpid())
    write_job(found[2], "slurm", id="4710", host="login")
    write_state(found[2], "running", ago=700)
    write_state(found[3], "pending")
    write_job(found[3], "slurm", id="4711", host="login")
    return found


TABLE = """\
run                    name                 state         where     done  best                      train loss      eta
20260104-100000-ddddd  other                pending       job 4711
20260103-100000-ccccc  a_name_that_is_long  silent 10:00  job 4710   60%  loss 1.2500                      nan  1:02:05
20260102-100000-bbbbb  tiny                 running       debug      60%  balanced_accuracy 0.7500      0.5123  1:02:05
20260101-100000-aaaaa  tiny                 finished      local     100%  accuracy 0.8750               0.4000
"""


def test_a_pipe_gets_plain_text(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert re.sub(r"silent 10:0\d", "silent 10:00", capsys.readouterr().out) == TABLE


def test_a_terminal_gets_a_table_that_fits(runs: list[RunDir]) -> None:
    """Its first column is enough to name a run."""
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-m", "drumbeat", "ls"], stdout=theirs, check=True, stderr=theirs,
                   env=os.environ | {"COLUMNS": "80", "TERM": "xterm"})
    os.close(theirs)
    output = os.read(ours, 100_000).decode()
    os.close(ours)
    plain = "".join(part.partition("m")[2] if number else part for number, part in enumerate(output.split("\x1b[")))
    lines = [line.rstrip() for line in plain.splitlines()]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines] == ["run", "ddddd", "ccccc", "bbbbb", "aaaaa"]
    assert re.fullmatch(r"ccccc  a_name_…  silent 10:\d\d  job 4710   60%  loss 1.2500  +nan  1:02:05", lines[2])
    assert re.fullmatch(r"bbbbb  tiny   +running +debug +60%  bala… 0.7500  +0.5123  1:02:05", lines[3])
    assert "\x1b[32mrunning" in output
    assert main(["status", "ccccc"]) == 0


def test_the_newest_runs_come_first_and_fit_a_screen(runs: list[RunDir], capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drumbeat.launch.runs.listing.MAX_ROWS", 3)
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
    assert (found[2]["monitor"], found[2]["best"]) == ("balanced_accuracy", 0.75)
    assert main(["status", "aaaaa", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known == found[3]
    assert (known["state"], known["result"]["test"]["accuracy"], known["folder"]) == (
        "finished", 0.9, str(runs[0].path))


def why_of(run: RunDir) -> str:
    return why(with_final_state(View.read(run)))


def queue(folder: Path, script: str) -> str:
    (folder / "bin").mkdir(exist_ok=True)
    (folder / "bin" / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "bin" / "squeue").chmod(0o755)
    return f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"


def test_why_a_job_waits(runs: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own job and its successor are found by the run's id in their comments; other jobs are not."""
    monkeypatch.setenv("PATH", queue(tmp_path, f"""\
echo '4711|PENDING|Resources|2026-01-05T06:07:08|gpu|{IDS[3]}'
echo '4712|PENDING|PartitionTimeLimit|N/A|gpu|{IDS[3]}'
echo '99|PENDING|Priority|N/A|gpu|other'"""))
    monkeypatch.setattr("drumbeat.launch.backends.typed.program", lambda name: name)
    assert why_of(runs[3]) == f"""\
run         {IDS[3]}
state       pending
job         4711, pending in partition gpu
why         Resources: it is next, and waits for free nodes
start       expected at 2026-01-05 06:07:08
fix         Wait; or request less: fewer --nodes or --gpus, a shorter
            time_minutes.
job         4712, pending in partition gpu
why         PartitionTimeLimit: it requests more time than its partition allows
            for a job
fix         drumbeat cancel {IDS[3]}, then lower time_minutes in
            the profile. A run that needs longer is requeued by itself. sinfo -o
            '%P %l' shows the limits."""


def test_why_if_slurm_does_not_answer(runs: list[RunDir], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", queue(tmp_path, "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; "
                                               "exit 1"))
    assert "why         SLURM does not answer: slurm_load_jobs error: Unable to contact" in why_of(runs[3])
    monkeypatch.setenv("PATH", queue(tmp_path, ""))
    assert "job         4711, which SLURM no longer knows\n" in why_of(runs[3])


def test_why_agrees_with_status_about_a_run_whose_job_has_just_ended(runs: list[RunDir], tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    """Its launcher may still be writing its end: `status` asks SLURM only after a while without a heartbeat."""
    monkeypatch.setenv("PATH", queue(tmp_path, "touch asked"))
    write_heartbeat(runs[2], step=600)
    view = with_final_state(View.read(runs[2]))
    assert "state           running\n" in status_text(view)
    assert not (tmp_path / "asked").exists()
    output = " ".join(why(view).split())
    assert "state running job 4710, which SLURM no longer knows why its job has ended, and" in output
    assert "fix Check again in two minutes; or resume the run: " in output
    write_heartbeat(runs[2], step=600, ago=121)
    view = with_final_state(View.read(runs[2]))
    assert "state           failed\n" in status_text(view)
    assert "state       failed\nwhy         its launcher was killed, or" in why(view)


def test_why_of_a_run_that_waits_for_its_disk(runs: list[RunDir]) -> None:
    write_job(runs[2], id="17", host="elsewhere")
    write_heartbeat(runs[2], pause_reason="the disk is full")
    assert why_of(runs[2]).splitlines()[3:] == [
        "why         the disk is full", "fix         Free some space, or bring the disk back: the run continues by",
        "            itself."]


def test_why_of_runs_outside_slurm(runs: list[RunDir]) -> None:
    assert "why         it has finished" in why_of(runs[0])
    write_state(runs[1], "failed", "rank 1 on n1 was killed")
    assert "why         rank 1 on n1 was killed\nfix         Resume it: " in why_of(runs[1])
    write_job(runs[2], "debug", host=socket.gethostname(), pid=os.getpid())
    assert "no heartbeat for 10:0" in why_of(runs[2])


@pytest.mark.parametrize(("reason", "meaning"), [
    ("QOSGrpCpuLimit", "its QOS limits the cores of all its jobs together"),
    ("AssocMaxSubmitJobLimit", "its account limits the jobs in the queue of each user"),
    ("QOSMaxNodePerJobLimit", "it asks for more nodes than its QOS allows for a job"),
    ("ReqNodeNotAvail, UnavailableNodes:n1", "a node that it needs is down, drained or reserved (UnavailableNodes:n1)"),
    ("(Nodes required for job are DOWN)", "SLURM's reason is Nodes required for job are DOWN"),
    ("launch_failed_requeued_held", "it could not be started on its node, and SLURM holds it"),
])
def test_the_meaning_of_reasons(reason: str, meaning: str) -> None:
    assert explain_reason(reason)[0] == meaning


def test_an_unknown_reason() -> None:
    assert "JOB" not in explain_reason("Weather")[1], "JOB would be replaced by the job's id"


def test_every_reason_has_a_meaning_and_a_remedy() -> None:
    assert all(meaning and remedy for meaning, remedy in REASONS.values())


def test_a_local_run_without_processes_has_failed(runs: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    write_job(runs[2], id="17", host=socket.gethostname())
    assert main(["ls"]) == 0
    assert re.search(r"a_name_that_is_long +failed +local +60% ", capsys.readouterr().out)


def a_list(file: Path) -> None:
    file.write_text("[1]")


def other_types(file: Path) -> None:
    file.write_text('{"state": "running", "attempt": "0"}')


def no_utf_8(file: Path) -> None:
    file.write_bytes(b'{"state": "\xff"}')


def half_of_it(file: Path) -> None:
    file.write_text('{"state": "runn')


def a_pipe(file: Path) -> None:
    os.mkfifo(file)


def a_folder(file: Path) -> None:
    file.mkdir()


@pytest.fixture(params=[
    (a_list, "status.json", "it contains a list, not an object"),
    (other_types, "status.json", "'attempt' is \"0\", not a whole number"),
    (no_utf_8, "status.json", "it is not JSON ('utf-8' codec can't decode byte 0xff in position 11: invalid start "
                              "byte)"),
    (half_of_it, "job.json", "it is not JSON (Unterminated string starting at: line 1 column 11 (char 10))"),
    (a_pipe, "status.json", "it is not a regular file"),
    (a_pipe, "plan.json", "it is not a regular file"),
    (a_folder, "job.json", "it is not a regular file"),
    (a_list, "result.json", "it contains a list, not an object"),
    (a_list, "attempts/000/heartbeat.json", "it contains a list, not an object"),
    (None, "plan.json", "it is missing"),
], ids=lambda case: f"{case[1]} {case[0].__name__ if case[0] else 'missing'}")
def damaged(runs: list[RunDir], request: pytest.FixtureRequest) -> tuple[RunDir, Path, str]:
    """A run with one damaged file, between intact runs; the file, and the message about it."""
    damage, name, message = request.param
    file = runs[1].path / name
    file.unlink(missing_ok=True)
    if damage:
        damage(file)
    return runs[1], file, message


def test_a_damaged_run_is_a_row_and_a_line_and_does_not_affect_the_others(
        runs: list[RunDir], damaged: tuple[RunDir, Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, file, message = damaged
    assert main(["ls"]) == 0
    output = capsys.readouterr()
    expected = re.sub(rf"({run.id} +tiny +)running .*", r"\1damaged", TABLE)  # in narrower columns
    assert re.sub(r"silent 10:0\d", "silent 10:00", output.out).split() == expected.split()
    assert output.err == f"damaged    {file}: {message}\n"
    assert main(["ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [known["state"] for known in found] == ["pending", "running", "damaged", "finished"]
    assert (found[2]["id"], found[2]["verdict"]) == (run.id, f"{file}: {message}")


@pytest.mark.parametrize("line", ["status", "status --json", "why", "logs", "logs --errors", "stop", "cancel",
                                  "resume"])
def test_a_command_on_a_damaged_run_is_one_screen(damaged: tuple[RunDir, Path, str],
                                                  capsys: pytest.CaptureFixture[str], line: str) -> None:
    run, file, message = damaged
    verb, *options = line.split()
    before = sorted(run.path.rglob("*"))
    assert main([verb, run.id, *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    screen = " ".join(output.err.split())
    assert screen == (f"error: a file of the run cannot be read: {message} where {file} "
                      "fix Restore it, or start a new run.")
    assert sorted(run.path.rglob("*")) == before


def test_copies_of_attempts_and_checkpoints_are_ignored(runs: list[RunDir],
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    run = runs[1]
    for name in ("attempts/000 (copy)", "attempts/7", "checkpoints/step-00000010.bak", "checkpoints/step-x",
                 "checkpoints/step-00000009"):
        (run.path / name).mkdir(parents=True)
    run.config.write_text("phases: {}\nname: x\nbatch_size: 1\nmodel: {_target_: x}\n")
    for command in (["ls"], ["status", run.id], ["why", run.id], ["checkpoints", run.id],
                  ["logs", run.id, "--errors"]):
        assert main(command) == 0, command
        output = capsys.readouterr()
        assert output.err == ""
        if command[0] == "checkpoints":
            assert [line.split()[0] for line in output.out.splitlines()] == ["step", "9", "damaged"]
            assert output.out.endswith("damaged      step 9: no manifest\n")


LS = f"""
import sys
from drumbeat.launch.commands.main import main
main(["ls", "--runs", sys.argv[1]])
print("---", flush=True)
{AS_ANOTHER}
sys.exit(main(["ls", "--runs", sys.argv[1]]))
"""


def test_a_file_that_only_its_owner_may_read_is_damaged_for_others() -> None:
    with shared_folder() as folder:
        for name in ("mine", "yours"):
            run = RunDir(folder / name / f"20260101-100000-{name}")
            write_plan(run)
            write_state(run, "stopped")
        run.status.chmod(0o000)
        done = subprocess.run([sys.executable, "-c", LS, str(folder)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, f"damaged    {run.status}: Permission denied")
    states = [line.split()[1:3] for line in done.stdout.partition("---\n")[2].splitlines()]
    assert states == [["name", "state"], ["yours", "damaged"], ["mine", "stopped"]]

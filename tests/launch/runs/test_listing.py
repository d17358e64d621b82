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
from drumbeat.launch.commands.main import main
from tests.launch.made import IDS
from tests.runs import AS_ANOTHER, shared_folder, write_job, write_plan, write_state

TABLE = """\
run                    name                 state         where     done  best                      train loss      eta
20260104-100000-ddddd  other                pending       job 4711
20260103-100000-ccccc  a_name_that_is_long  silent 10:00  job 4710   60%  loss 1.2500                      nan  1:02:05
20260102-100000-bbbbb  tiny                 running       debug      60%  balanced_accuracy 0.7500      0.5123  1:02:05
20260101-100000-aaaaa  tiny                 finished      local     100%  accuracy 0.8750               0.4000
"""


def test_a_pipe_gets_plain_text(listed: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls"]) == 0
    assert re.sub(r"silent 10:0\d", "silent 10:00", capsys.readouterr().out) == TABLE


def test_a_terminal_gets_a_table_that_fits(listed: list[RunDir]) -> None:
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
    assert re.fullmatch(r"ccccc  a_name_…  silent 10:\d\d  job 4710   60%  loss 1.2500  +nan  1:02:05", lines[2])
    assert re.fullmatch(r"bbbbb  tiny   +running +debug +60%  bala… 0.7500  +0.5123  1:02:05", lines[3])
    assert "\x1b[32mrunning" in said
    assert main(["status", "ccccc"]) == 0


def test_the_newest_first_and_no_more_than_a_screen(listed: list[RunDir], capsys: pytest.CaptureFixture[str],
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drumbeat.launch.runs.listing.MAX_ROWS", 3)
    assert main(["ls"]) == 0
    output = capsys.readouterr()
    assert (len(output.out.splitlines()), output.err) == (4, "... and 1 older: --all\n")
    assert main(["ls", "--all"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert main(["ls", "--runs", "elsewhere"]) == 0
    assert capsys.readouterr().err == "no runs in elsewhere\n"


def test_programs_get_json(listed: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [run["id"] for run in found] == IDS[::-1]
    assert found[1]["loss"] is None
    assert (found[2]["monitor"], found[2]["best"]) == ("balanced_accuracy", 0.75)
    assert main(["status", "aaaaa", "--json"]) == 0
    known = json.loads(capsys.readouterr().out)
    assert known == found[3]
    assert (known["state"], known["result"]["test"]["accuracy"], known["folder"]) == (
        "finished", 0.9, str(listed[0].path))


def test_a_local_run_without_processes_has_failed(listed: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    write_job(listed[2], id="17", host=socket.gethostname())
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
def damaged(listed: list[RunDir], request: pytest.FixtureRequest) -> tuple[RunDir, Path, str]:
    """A run one of whose files is damaged, between runs that are as they should be; the file, and what is wrong."""
    harm, name, words = request.param
    file = listed[1].path / name
    file.unlink(missing_ok=True)
    if harm:
        harm(file)
    return listed[1], file, words


def test_a_damaged_run_is_a_row_and_a_line_and_costs_the_others_nothing(
        listed: list[RunDir], damaged: tuple[RunDir, Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    run, file, words = damaged
    assert main(["ls"]) == 0
    output = capsys.readouterr()
    expected = re.sub(rf"({run.id} +tiny +)running .*", r"\1damaged", TABLE)  # in narrower columns
    assert re.sub(r"silent 10:0\d", "silent 10:00", output.out).split() == expected.split()
    assert output.err == f"damaged    {file}: {words}\n"
    assert main(["ls", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [known["state"] for known in found] == ["pending", "running", "damaged", "finished"]
    assert (found[2]["id"], found[2]["verdict"]) == (run.id, f"{file}: {words}")


@pytest.mark.parametrize("line", ["status", "status --json", "why", "logs", "logs --errors", "stop", "cancel",
                                  "resume"])
def test_a_command_on_a_damaged_run_is_one_screen(damaged: tuple[RunDir, Path, str],
                                                  capsys: pytest.CaptureFixture[str], line: str) -> None:
    run, file, words = damaged
    verb, *options = line.split()
    run.lock.touch()  # as in every run
    before = sorted(run.path.rglob("*"))
    assert main([verb, run.id, *options]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    screen = " ".join(output.err.split())
    assert screen == (f"error: a file of the run cannot be read: {words} where {file} "
                      "fix Restore it, or start a new run.")
    assert sorted(run.path.rglob("*")) == before


def test_copies_of_attempts_and_checkpoints_are_ignored(listed: list[RunDir],
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    """Attempts and checkpoints."""
    run = listed[1]
    for name in ("attempts/000 (copy)", "attempts/7", "checkpoints/step-00000010.bak", "checkpoints/step-x",
                 "checkpoints/step-00000009"):
        (run.path / name).mkdir(parents=True)
    run.config.write_text("phases: {}\nname: x\nbatch_size: 1\nmodel: {_target_: x}\n")
    for words in (["ls"], ["status", run.id], ["why", run.id], ["checkpoints", run.id],
                  ["logs", run.id, "--errors"]):
        assert main(words) == 0, words
        output = capsys.readouterr()
        assert output.err == ""
        if words[0] == "checkpoints":
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


def test_sizes_are_a_column_if_they_are_asked_for(listed: list[RunDir], capsys: pytest.CaptureFixture[str]) -> None:
    (listed[0].path / "weights").write_bytes(bytes(12_345_678))
    assert main(["ls", "--size"]) == 0
    header, *_, last = capsys.readouterr().out.splitlines()
    assert (header.split()[-1], last.split()[-2:]) == ("size", ["12.3", "MB"])
    assert main(["ls", "--size", "--json"]) == 0
    sizes = [run["bytes"] for run in json.loads(capsys.readouterr().out)]
    assert sizes[-1] == sum(path.stat().st_size for path in listed[0].path.rglob("*") if path.is_file())

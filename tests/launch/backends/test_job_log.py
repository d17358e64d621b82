"""What the log of a job says about its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.backends.job_log import last_line, last_lines, log_files, node_without_launcher

CANCELLED = "slurmstepd: error: *** JOB 7 ON n1 CANCELLED AT 2026-11-28T22:01:31 DUE TO TIME LIMIT ***"


@pytest.mark.parametrize(("text", "line"), [
    ("slurmstepd: error: execve(): apptainer: No such file or directory\nsrun: error: n1: task 0: Exited with exit "
     "code 2\nsrun: Terminating StepId=7.0\n", "slurmstepd: error: execve(): apptainer: No such file or directory"),
    ("Traceback (most recent call last):\nModuleNotFoundError: No module named 'submitit'\nsrun: error: n[1-2]: tasks "
     "0-1: Exited with exit code 1\n\n", "ModuleNotFoundError: No module named 'submitit'"),
    (f"slurmstepd-n1: error: *** STEP 7.0 ON n1 CANCELLED AT 2026 ***\n{CANCELLED}\n", CANCELLED),
    ("submitit WARNING (2026-11-28 22:01:31,123) - Bypassing signal SIGTERM\n", ""),
    ("", ""),
])
def test_the_line_that_tells_the_reason(tmp_path: Path, text: str, line: str) -> None:
    run = RunDir(tmp_path)
    run.submitit.mkdir()
    (run.submitit / "7_0_log.err").write_text(text)
    assert last_line(run, "7") == line


def test_the_files_of_one_job(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.submitit.mkdir()
    for name in ("7_10_log.err", "7_2_log.err", "7_0_log.out", "77_0_log.err", "7_submission.sh"):
        (run.submitit / name).write_text("x\n")
    (run.submitit / "7_0_log.err").touch()
    assert [path.name for path in log_files(run, "7")] == ["7_2_log.err", "7_10_log.err", "7_0_log.out"]


def test_the_end_of_a_long_log(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("x" * 10**6 + "".join(f"\nline {number}" for number in range(9)))
    assert last_lines(tmp_path / "log") == [f"line {number}" for number in range(4, 9)]


def ended(*nodes: str, times: int = 21) -> str:
    """What srun reports when the launchers of these nodes end by themselves each time that the script starts them."""
    return "".join(f"srun: error: {node}: task {node.removeprefix('n')}: Exited with exit code 127\n"
                   "srun: error: n0: task 0: Terminated\n" for _ in range(times) for node in nodes)


@pytest.mark.parametrize(("text", "node"), [
    (ended("n12"), ("n12", 12)),
    (ended("n12", times=2), ("", -1)),
    (ended("n1", "n12"), ("", -1)),
    (ended("n1") + "srun: error: n[0-1]: tasks 0-1: Exited with exit code 1\n", ("", -1)),
    ("srun: error: n[0-1]: tasks 0-1: Exited with exit code 1\n" * 9, ("", -1)),
    ("", ("", -1)),
], ids=["one", "once-or-twice", "two", "one-and-all", "all", "none"])
def test_the_only_node_without_a_launcher(tmp_path: Path, text: str, node: tuple[str, int]) -> None:
    run = RunDir(tmp_path)
    run.submitit.mkdir()
    (run.submitit / "7_0_log.err").write_text(f"module cuda is loaded\n{text}")
    (run.submitit / "7_12_log.err").write_text("execve(): no such file\n")
    assert node_without_launcher(run, "7") == node
    assert last_line(run, "7") == ("execve(): no such file" if node[0] else "module cuda is loaded")

"""Calling SLURM's programs: every result is an answer with an exit code and a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.launch.slurm import client
from drumbeat.launch.slurm.client import (
    Answer,
    SlurmUnreachableError,
    array_tasks,
    cancel_jobs,
    job_state,
    queued,
    run_slurm,
    steps,
)
from tests.launch.fake_slurm import programs


def test_a_program_gets_arguments_a_script_and_the_time_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_TIME_FORMAT", "relative")
    monkeypatch.setenv("PATH", programs(tmp_path, sbatch='echo "$*; $SLURM_TIME_FORMAT; $(cat)"; echo more >&2'))
    assert run_slurm("sbatch", "--test-only", script="#!/bin/sh") == (0, "--test-only; standard; #!/bin/sh\nmore")
    assert run_slurm("sbatch", "-V") == (0, "-V; standard; \nmore"), "it reads nothing of this terminal's"


def test_a_program_that_does_not_answer_gives_an_answer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT", 0.2)
    monkeypatch.setenv("PATH", programs(tmp_path, sinfo="exec sleep 60", scontrol="exit 3"))
    assert run_slurm("sinfo") == (1, "sinfo does not answer within 0.2 s")
    assert run_slurm("scontrol") == (3, "scontrol ended with code 3")
    monkeypatch.setenv("PATH", "/nowhere")
    assert run_slurm("sinfo") == (127, "there is no sinfo on PATH")


def test_an_answer_that_is_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=r"printf '4711|\377\n'"))
    assert run_slurm("squeue") == (0, "4711|\ufffd")


@pytest.mark.parametrize(("text", "unreachable"), [
    ("Unable to contact slurm controller (connect failure)", True),
    ("Batch job submission failed: Socket timed out on send/recv operation", True),
    ("Transport endpoint is not connected", True),
    ("Zero Bytes were transmitted or received", True),
    ("sinfo does not answer within 30 s", True),
    ("there is no sinfo on PATH", False),
    ("Invalid job id specified", False),
    ("Requested time limit is invalid (missing or exceeds some limit)", False),
])
def test_whether_the_controller_was_reached(text: str, unreachable: bool) -> None:
    assert Answer(1, text).unreachable == unreachable
    assert not Answer(0, text).unreachable


def test_a_job_that_has_ended_is_not_an_unreachable_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    over = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=over, scancel=over))
    assert (job_state("7"), steps("7", "run")) == ("", [])
    cancel_jobs("7")
    monkeypatch.setenv("PATH", programs(tmp_path, squeue="echo RUNNING"))
    assert job_state("7") == "RUNNING"


def test_an_unreachable_controller_raises_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = "echo 'Unable to contact slurm controller' >&2; exit 1"
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=away, scancel=away))
    for question, arguments in ((job_state, ["7"]), (steps, ["7", "run"]), (queued, ["run"]), (cancel_jobs, ["7"])):
        with pytest.raises(SlurmUnreachableError, match="Unable to contact slurm controller"):
            question(*arguments)


def test_the_users_settings_of_slurms_programs_change_no_answer(tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SQUEUE_PARTITION", "SQUEUE_STATES", "SCANCEL_STATE", "SINFO_FORMAT", "SCONTROL_FUTURE",
                 "SACCT_FORMAT", "SLURM_JSON", "SBATCH_ACCOUNT", "SLURM_CLUSTERS", "SLURM_CONF"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PATH", programs(tmp_path, squeue="env | grep =x$ | sort"))
    assert run_slurm("squeue").text.split() == ["SBATCH_ACCOUNT=x", "SLURM_CLUSTERS=x", "SLURM_CONF=x"]


@pytest.mark.parametrize(("comment", "script", "ours"), [
    ("run", "x", True), ("site: run", "x", True), ("", "/runs/tiny/run/submitit/7.sh", True),
    ("changed by a plugin", "/runs/tiny/run/submitit/7.sh", True), ("another-run", "/elsewhere.sh", False),
    ("(null)", "(null)", False), ("", "", False)])
def test_a_job_of_this_number_may_be_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comment: str, script: str,
                                             ours: bool) -> None:
    """That of another cluster with the same file system, of one that counts from one again, or a forged one."""
    monkeypatch.setenv("PATH", programs(tmp_path, squeue=f"echo '7|RUNNING|None|N/A|main|{comment}|{script}'"))
    assert [job.id for job in queued("run", "7")] == (["7"] if ours else [])


def test_a_job_is_asked_for_on_its_own_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", programs(
        tmp_path, squeue=f'echo "$SLURM_CLUSTERS: $*" >> {tmp_path}/calls; echo "12|RUNNING|None|N/A|main|run"',
        scancel=f'echo "$SLURM_CLUSTERS: $*" >> {tmp_path}/calls'))
    assert [job.id for job in queued("run", "12;gpu")] == ["12;gpu"]
    assert [job.id for job in queued("run", "12")] == ["12"]
    job_state("12;gpu")
    cancel_jobs("12;gpu", "13;gpu", "14")
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call.partition(":")[0] for call in calls] == ["gpu", "", "gpu", "", "gpu"]
    assert calls[2:] == ["gpu: --noheader --jobs 12 --format %T", ": 14", "gpu: 12 13"]


def test_the_tasks_of_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comment of an array is the beginning of its runs' ids and the number of task 0."""
    lines = ["12_3|RUNNING|None|N/A|main|20260102-abcde@1000|/runs/s/submitit/x.sh",
             "12_[4-9%2]|PENDING|JobArrayTaskLimit|N/A|main|20260102-abcde@1000|/runs/s/submitit/x.sh"]
    monkeypatch.setenv("PATH", programs(tmp_path, squeue="\n".join(f"echo '{line}'" for line in lines)))
    assert [job.id for job in queued("20260102-abcde-1003", "12_3")] == ["12_3"]
    assert queued("20260102-abcde-0003") == []
    monkeypatch.setenv("PATH", programs(tmp_path, squeue="printf '12_3|x@1000\\n12_4|x@1000\\n13|y\\n'"))
    assert array_tasks("12;gpu") == {1003, 1004}
    monkeypatch.setenv("PATH", programs(tmp_path, squeue="echo 'Unable to contact slurm controller' >&2; exit 1"))
    with pytest.raises(SlurmUnreachableError):
        array_tasks("12")

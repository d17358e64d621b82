"""What to do about a run that has ended: it depends on what ended it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.code_records import CodeSnapshot
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Next, RankError, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.remedy import remedy, resume_command
from tests.runs import write_plan, write_state


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-100000-aaaaa")
    write_plan(run)
    (run.path / "code").mkdir()
    CodeSnapshot(trees=(), home="", folder="").write(run.path / "code" / "snapshot.json")
    return run


def failed(run: RunDir, error: str, following: Next = "give up") -> View:
    verdict = Verdict(outcome="failed", next=following, message="it failed", step=-1, error=error)
    verdict.write(run.claim_attempt().verdict)
    write_state(run, "failed", "it failed")
    return View.read(run)


@pytest.mark.parametrize(("error", "expected"), [
    ("AttributeError at step 3 of rank 1", "Correct the code, then resume the run: COMMAND --new-code"),
    ("PreflightError at step 3 of rank 1", "Correct what it says. Then resume the run: COMMAND"),
    ("OutOfMemoryError at step 3 of rank 1", "Resume it: COMMAND"),
    ("LostBestError at step 3 of rank 1", "Resume it: COMMAND"),
    ("", "Resume it: COMMAND"),
    ("NotFiniteError at step 3 of rank 1",
     "Resume it in this process, with a breakpoint in your code: COMMAND --debug. Or skip such steps in a new run: "
     "RERUN on_nonfinite=skip"),
])
def test_the_remedy_for_an_exception(run: RunDir, error: str, expected: str) -> None:
    view = failed(run, error)
    plain = resume_command(view).removesuffix(" --new-code").removesuffix(" --debug")
    assert plain.endswith(f"resume {run.id}")
    assert remedy(view) == expected.replace("COMMAND", plain).replace("RERUN", plain.replace("resume", "rerun"))


def test_without_a_copy_of_the_code_there_is_no_newer_one(run: RunDir) -> None:
    (run.path / "code" / "snapshot.json").unlink()
    assert resume_command(failed(run, "AttributeError at step 3 of rank 1")).endswith(f"resume {run.id}")


def test_a_run_that_was_stopped_is_resumed_as_it_is(run: RunDir) -> None:
    write_state(run, "stopped", "stopped at step 3")
    assert remedy(View.read(run)) == f"Resume it: {resume_command(View.read(run))}"


@pytest.mark.parametrize(("fix", "expected"), [
    ("Restore that folder from a copy, and resume the run; or train again: drumbeat rerun tiny",
     "Restore that folder from a copy, and resume the run; or train again: drumbeat rerun tiny"),
    ("Repair or restore the file, which the training set needs in each of its epochs.",
     "Repair or restore the file, which the training set needs in each of its epochs. Then resume the run: COMMAND"),
])
def test_the_remedy_is_the_one_that_the_error_names(run: RunDir, fix: str, expected: str) -> None:
    attempt = run.claim_attempt()
    message = str(RunError(Fault(what="it failed", where="/data" * 30, remedy=fix)))
    RankError(rank=1, node="n1", type="RunError", message=message, step=3, user_error=True).write(attempt.error(1))
    Verdict(outcome="failed", next="give up", message="it failed", step=3, rank=1, error="RunError at step 3 of rank 1"
            ).write(attempt.verdict)
    write_state(run, "failed", "it failed")
    view = View.read(run)
    assert remedy(view) == expected.replace("COMMAND", resume_command(view))

"""What to do about a run that has ended: it depends on what ended it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.load import load
from drumbeat.configs.run.code_records import CodeSnapshot
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Heartbeat, Next, NodeDown, RankError, Verdict
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.typed import command
from drumbeat.launch.runs.remedy import has_own_remedy, remedy, resume_command
from tests.launch.tiny_plan import write_config
from tests.runs import write_plan, write_state


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    monkeypatch.chdir(tmp_path)
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-100000-aaaaa")
    write_plan(run)
    (run.path / "code").mkdir()
    CodeSnapshot(trees=(), home="", folder="").write(run.path / "code" / "snapshot.json")
    return run


def failed(run: RunDir, error: str, following: Next = "give up", *, message: str = "", traceback: str = "",
           reason: str = "") -> View:
    attempt = run.claim_attempt()
    if kind := error.partition(" ")[0]:
        RankError(rank=1, node="n1", type=kind, message=message, step=3, traceback=traceback).write(attempt.error(1))
    Verdict(outcome="failed", next=following, message="it failed", step=-1, rank=1, error=error, reason=reason).write(
        attempt.verdict)
    write_state(run, "failed", "it failed")
    return View.read(run)


@pytest.mark.parametrize(("error", "expected"), [
    ("AttributeError at step 3 of rank 1", "Correct the code, then resume the run: COMMAND --new-code"),
    ("PreflightError at step 3 of rank 1", "Correct what it says. Then resume the run: COMMAND"),
    ("OutOfMemoryError at step 3 of rank 1", "Lower micro_batch_size. Then resume the run: COMMAND"),
    ("LostBestError at step 3 of rank 1", "Resume it: COMMAND"),
    ("", "Resume it: COMMAND"),
    ("NotFiniteError at step 3 of rank 1",
     "Skip such steps: COMMAND on_nonfinite=skip\nOr look at the step in this process, with a breakpoint in your code: "
     "COMMAND --debug"),
])
def test_the_remedy_for_an_exception(run: RunDir, error: str, expected: str) -> None:
    view = failed(run, error)
    assert remedy(view) == expected.replace("COMMAND", command("resume", run))


def test_skipping_is_not_advised_where_it_does_not_help(run: RunDir) -> None:
    run.config.write_text(load(write_config(run.path)).as_yaml())
    view = failed(run, "NeverFiniteError at step 3 of rank 1")
    Heartbeat(phase="finetune").write(view.attempt.heartbeat)  # type: ignore[union-attr]
    assert remedy(View.read(run)) == (
        "Skipping such steps does not help. Train with a lower learning rate, as a new run: "
        f"{command('rerun', run)} phases.finetune.optimizer.lr=0.005")


@pytest.mark.parametrize(("kind", "message", "expected"), [
    ("RuntimeError", "DataLoader worker (pid 7) is killed by signal: Killed.", "Resume it: COMMAND"),
    ("RuntimeError", "CUDA error: uncorrectable ECC error encountered",
     "Report that node to its administrator. Then resume the run: COMMAND"),
    ("RuntimeError", "mat1 and mat2 shapes cannot be multiplied",
     "Correct the code, then resume the run: COMMAND --new-code"),
])
def test_an_error_of_the_machine_is_not_one_of_the_code(run: RunDir, kind: str, message: str, expected: str) -> None:
    view = failed(run, f"{kind} at step 3 of rank 1", message=message)
    assert remedy(view) == expected.replace("COMMAND", command("resume", run))


@pytest.mark.parametrize(("micro", "option"), [
    ("null", " micro_batch_size=3"), ("4", " micro_batch_size=2"), ("1", ""), ("auto", "")])
def test_too_little_memory_is_answered_with_smaller_parts(run: RunDir, micro: str, option: str) -> None:
    """Of a batch of 12 on two ranks."""
    run.config.write_text(load(write_config(run.path), [f"micro_batch_size={micro}"]).as_yaml())
    view = failed(run, "OutOfMemoryError at step 3 of rank 1", message="CUDA out of memory")
    assert resume_command(view) == command("resume", run) + option


def test_a_sample_that_cannot_be_read(run: RunDir) -> None:
    view = failed(run, "DamagedSampleError at step 3 of rank 1")
    plain = command("resume", run)
    assert remedy(view) == (f"Use other samples in place of such: {plain} data.on_error=skip\n"
                            f"Or repair the file, then resume the run: {plain}")


def test_a_time_limit_that_is_too_short_is_not_tried_again(run: RunDir) -> None:
    assert remedy(failed(run, "", reason="time limit")) == (
        f"Increase time_minutes in your profile, then resume the run with it: {command('resume', run)} --profile FILE")


def test_without_a_copy_of_the_code_there_is_no_newer_one(run: RunDir) -> None:
    (run.path / "code" / "snapshot.json").unlink()
    assert resume_command(failed(run, "AttributeError at step 3 of rank 1")).endswith(f"resume {run.id}")


def test_a_run_that_was_stopped_is_resumed_as_it_is(run: RunDir) -> None:
    write_state(run, "stopped", "stopped at step 3")
    assert remedy(View.read(run)) == f"Resume it: {resume_command(View.read(run))}"


@pytest.mark.parametrize(("checks", "expected"), [
    (["missing", "missing"],
     "Make it visible on the nodes (details: attempts/000/node0.log), then resume the run: COMMAND"),
    (["failed", "missing"],
     "Make it visible on the nodes (details: attempts/000/node1.log), then resume the run: COMMAND"),
    (["", "failed"], "Try node_check on a node (details: attempts/000/node1.log), or correct the profile, then resume "
                     "the run with it: COMMAND --profile FILE"),
])
def test_what_a_check_has_found_is_corrected_first(run: RunDir, checks: list[Literal["", "missing", "failed"]],
                                                   expected: str) -> None:
    view = failed(run, "")
    for number, check in enumerate(checks):
        NodeDown(exit_code=1, host=f"n{number}", check=check).write(run.attempt(0).node_down(number))
    assert remedy(view) == expected.replace("COMMAND", command("resume", run))


@pytest.mark.parametrize(("fix", "expected"), [
    ("Restore that folder from a copy, and resume the run; or train again: drumbeat rerun tiny",
     "Restore that folder from a copy, and resume the run; or train again: drumbeat rerun tiny"),
    ("Repair or restore the file, which the training set needs in each of its epochs.",
     "Repair or restore the file, which the training set needs in each of its epochs. Then resume the run: COMMAND"),
    ("Repair them, or raise the limit: drumbeat resume RUN data.max_skipped=0.1",
     "Repair them, or raise the limit: COMMAND data.max_skipped=0.1"),
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
    assert has_own_remedy(view) == ("resume RUN" in fix)

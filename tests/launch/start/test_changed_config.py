"""Changes on `resume`: what may change, what is refused, and what is checked before anything of the run changes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.load import read
from drumbeat.configs.run.changes import kept
from drumbeat.configs.run.checkpoint_records import CheckpointState, ConfigChange, PhaseEnd, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork, Part
from drumbeat.configs.run.manifest import checkpoint_path
from drumbeat.launch.commands.main import main
from tests.launch.start.submitted import SUBMIT, only_run
from tests.launch.tiny_plan import FACTS
from tests.runs import write_state

CHANGED = ["phases.finetune.optimizer.lr=0.01", "batch_size=6", "launch.restarts=5"]


@pytest.fixture
def failed(cluster: Path) -> RunDir:
    """A run that failed in its second phase."""
    assert main(SUBMIT) == 0
    run = only_run(cluster)
    write_state(run, "failed")
    save(run, 200, Progress(step=200, phase=1, phase_step=33))
    return run


def save(run: RunDir, step: int, progress: Progress) -> None:
    path = checkpoint_path(run, step)
    path.mkdir(parents=True)
    CheckpointState(progress=progress, config=kept(read(run.config))).write(path / "state.json")


def test_changes_are_checked_written_and_named(failed: RunDir, capsys: pytest.CaptureFixture[str],
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[Any] = []
    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight",
                        lambda config, plan: checked.append((config.batch_size, plan.run_dir)) or FACTS)
    capsys.readouterr()
    assert main(["resume", "small", *CHANGED]) == 0
    assert checked == [(6, str(failed.path))]
    config = read(failed.config)
    finetune = config.phases["finetune"]
    assert finetune is not None
    assert (finetune.optimizer["lr"], config.batch_size, config.launch.restarts) == (0.01, 6, 5)
    assert capsys.readouterr().out.startswith("""\
note       batch_size changed from 12 to 6, phases.finetune.optimizer.lr changed
           from 0.05 to 0.01; the run is exact up to step 200
""")


def test_without_effect_on_the_result_nothing_is_checked(failed: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", lambda config, plan: pytest.fail("checked"))
    assert main(["resume", "small", "launch.restarts=5", "batch_size=12", "watchdog.timeout_minutes=9"]) == 0


def test_nothing_changes_if_the_check_fails(failed: RunDir, monkeypatch: pytest.MonkeyPatch,
                                            capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: Any) -> None:
        raise PreflightError(Fault(what="too short", where="phases.finetune.optimizer.lr"))

    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", refuse)
    before = {path: path.read_bytes() for path in failed.path.rglob("*") if path.is_file() and path != failed.lock}
    assert main(["resume", "small", *CHANGED]) == 2
    assert "where  command line (phases.finetune.optimizer.lr)" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in failed.path.rglob("*") if path.is_file() and path != failed.lock
            } == before


def test_all_that_is_refused_is_one_screen(failed: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "small", "seed=3", "phases.head.epochs=9", "phases.finetune.freeze=[x]", "name=y"]) == 2
    assert capsys.readouterr().err == """\
error: name cannot change on resume: the run's folder has this name
  where  command line (name)
  given  small in the run, y now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE

error: seed cannot change on resume: the order of the samples and all random
       numbers follow from it
  where  command line (seed)
  given  0 in the run, 3 now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE

error: phases.head.epochs cannot change on resume: phase head is finished
  where  command line (phases.head.epochs)
  given  2.0 in the run, 9.0 now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE

error: phases.finetune.freeze cannot change on resume: the optimizer's saved
       state belongs to what the phase has trained so far
  where  command line (phases.finetune.freeze)
  given  [] in the run, [x] now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE
"""


def test_a_config_that_was_edited_by_hand_is_checked_too(failed: RunDir, monkeypatch: pytest.MonkeyPatch,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    checked: list[int] = []
    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight",
                        lambda config, plan: checked.append(config.batch_size) or FACTS)
    failed.config.write_text(failed.config.read_text().replace("batch_size: 12", "batch_size: 4"))
    capsys.readouterr()
    assert main(["resume", "small"]) == 0
    assert checked == [4]
    assert "batch_size changed from 12 to 4" in capsys.readouterr().out


def test_a_damaged_state_is_not_the_newest(failed: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """It would be as if no phase had begun."""
    damaged = checkpoint_path(failed, 210)
    damaged.mkdir()
    (damaged / "state.json").write_text("{")
    assert main(["resume", "small", "phases.finetune.freeze=[x]"]) == 2
    assert "phases.finetune.freeze cannot change" in capsys.readouterr().err


def test_a_finished_run_may_be_trained_for_longer(failed: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    write_state(failed, "finished")
    assert main(["resume", "small", "batch_size=6"]) == 2
    assert f"resume {failed.id} phases.finetune.epochs=N Or start it again" in " ".join(capsys.readouterr().err.split())
    assert main(["resume", "small", "phases.finetune.epochs=4"]) == 0


def test_a_rerun_says_that_it_has_the_last_values_from_its_start(failed: RunDir,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    change = ConfigChange(key="batch_size", old=24, new=12, step=100, attempt=1, user="me", time=1.0)
    save(failed, 300, Progress(step=300, phase=1, phase_step=133, changes=(change,)))
    capsys.readouterr()
    assert main(["rerun", "small", "--dry-run"]) == 0
    assert f"""\
# run {failed.id} is exact up to step 100; then batch_size changed
# from 24 to 12 by resume; this run has the last values from its start.
""" in capsys.readouterr().out


def test_a_run_keeps_at_least_one_phase(failed: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(failed.checkpoints)
    assert main(["resume", "small", "phases.head=null", "phases.finetune=null"]) == 2
    assert capsys.readouterr().err.startswith("error: the config has no phases, so there is nothing to train\n")


def test_a_finished_run_without_its_last_phase_is_not_longer(failed: RunDir, capsys: pytest.CaptureFixture[str]
                                                             ) -> None:
    save(failed, 300, Progress(step=300, phase=2))
    write_state(failed, "finished")
    assert main(["resume", "small", "phases.finetune=null"]) == 2
    assert "phase finetune is finished" in capsys.readouterr().err
    shutil.rmtree(failed.checkpoints)
    assert main(["resume", "small", "phases.finetune=null"]) == 2
    assert f"run {failed.id} is finished" in capsys.readouterr().err


def test_a_root_that_no_set_refers_to_is_refused(failed: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resume", "small", "data.root=/sets"]) == 2
    assert "data.root has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(("reason", "key", "value", "more"), [
    ("patience", "phases.finetune.patience", "3", "4"), ("target", "phases.finetune.target", "0.5", "0.01"),
    ("hours", "budget.hours", "2", "3")])
def test_what_continues_a_run_that_has_ended_early(failed: RunDir, reason: Any, key: str, value: str, more: str,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    """More epochs do not."""
    end = PhaseEnd(phase=1, steps=100, reason=reason, text="phase finetune ended after 100 steps")
    save(failed, 300, Progress(step=300, phase=1, ended=(end,), stale=3, seconds={"training": 9e3},
                               last={"step": 300, "loss": 0.1}))
    write_state(failed, "finished")
    name = key.rpartition(".")[2]
    failed.config.write_text(failed.config.read_text().replace(f" {name}: null", f" {name}: {value}"))
    assert main(["resume", "small", "phases.finetune.epochs=99"]) == 2
    error = capsys.readouterr().err
    assert "given  phases.finetune.epochs=99; phase finetune ended after 100 steps\n" in error
    error = " ".join(error.split())
    assert "fix Train it for longer: " in error
    assert f"drumbeat resume {failed.id} {key}=N Or start it again" in error
    assert main(["resume", "small", f"{key}={more}", "--no-preflight"]) == 0


def test_more_hours_continue_a_run_whose_hours_ended_with_a_phase(failed: RunDir,
                                                                  capsys: pytest.CaptureFixture[str]) -> None:
    save(failed, 300, Progress(step=300, phase=0, seconds={"training": 7200.0}))
    write_state(failed, "finished")
    failed.config.write_text(failed.config.read_text().replace(" hours: null", " hours: 2"))
    assert main(["resume", "small", "phases.finetune.epochs=99"]) == 2
    assert "budget.hours=N" in capsys.readouterr().err
    assert main(["resume", "small", "budget.hours=3", "--no-preflight"]) == 0


def test_a_fork_before_its_step_is_not_changed_by_its_own_config(failed: RunDir, monkeypatch: pytest.MonkeyPatch,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """What it is changed to meanwhile holds from its step on, and may be what may change there."""
    monkeypatch.setattr("drumbeat.launch.start.preflight.preflight", lambda config, plan: pytest.fail("checked"))
    save(failed, 100, Progress(step=100, phase=0, phase_step=100))
    shutil.rmtree(checkpoint_path(failed, 200))
    part = Part(until=300, config=kept(read(failed.config)))
    Fork(parent="20260101-000000-aaaaa", folder="/runs", step=300, start=100, phase=1, parts=(part,)).write(failed.fork)
    failed.config.write_text(failed.config.read_text().replace("batch_size: 12", "batch_size: 4"))
    capsys.readouterr()
    assert main(["resume", "small", "phases.finetune.freeze=[x]"]) == 2
    assert "phases.finetune.freeze cannot change on resume: the optimizer's saved" in capsys.readouterr().err
    assert main(["resume", "small", "phases.finetune.optimizer.lr=0.01", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "the run is exact up to step 300" in " ".join(out.replace("#", "").split())
    assert "batch_size changed" not in out
    assert main(["resume", "small"]) == 0

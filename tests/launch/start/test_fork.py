"""A fork computes, bit for bit, what its parent would have computed if it had been stopped at the step and resumed with
the changes. The runs of this module train in its process, one after another."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from drumbeat.configs.load import read
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.manifest import checkpoint_path, progress_at, saved_steps
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.records import Result, Saved, Verdict
from drumbeat.configs.run.step_log import StepLog
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.debug import train
from drumbeat.launch.backends.typed import command
from drumbeat.launch.commands.fork import fork
from drumbeat.launch.commands.main import main
from drumbeat.launch.replay.scratch import interval, scratch
from drumbeat.launch.runs.listing import facts
from drumbeat.trainers import stopping
from drumbeat.trainers.report.events import read_events
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.trackers.rows import Rows
from tests.runs import write_state
from tests.tiny import latest, write_config
from tests.warm import run_python

STEPS, HEAD = 42, 17
"""Of the whole run, and of its first phase."""
RATE = ["phases.finetune.optimizer.lr=0.01"]
ADAM = ["phases.finetune.optimizer={_target_: torch.optim.Adam, lr: 0.003}"]
BATCH = ["batch_size=6"]
SHORT = ["budget.steps=26"]
"""For forks of which it matters how they begin."""
DEBUG = ["--debug", "--no-preflight"]
COMMON = ["micro_batch_size=null", "tracking.images=0"]


class Stops(Classification):
    """Classification that asks the newest run of a folder to stop after a step, as `drumbeat stop` does, in its first
    attempt. The steps of a run that is stopped are counted in one process."""

    def __init__(self, *, after: int, runs: str, **options: Any) -> None:
        super().__init__(**options)
        self.after = after
        self.runs = Path(runs)

    def losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        attempt = RunDir((self.runs / "tiny" / "latest").resolve()).newest_attempt()
        if attempt and attempt.number == 0 and stopped_before(self.after):
            attempt.request_stop("stopped")
        return super().losses(outputs, targets)


TAKEN: list[int] = []
"""The steps before which the ranks have checked whether to stop."""


def stopped_before(step: int) -> bool:
    return TAKEN[-1:] == [step - 1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which commands are typed, with the config."""
    path = tmp_path_factory.mktemp("forks")
    write_config(path)
    with chdir(path):
        yield path


@pytest.fixture(scope="module")
def parent(folder: Path) -> RunDir:
    """A finished run that has kept a checkpoint of every third step."""
    assert main(["run", "tiny.yaml", *COMMON, *DEBUG, "checkpoints.keep=99"]) == 0
    return latest(folder)


def curves(run: RunDir) -> dict[str, list[tuple[int, float]]]:
    """Those that do not depend on the speed."""
    return {name: curve for name, curve in read_events(run.tensorboard).curves.items() if "speed" not in name}


def stopped_and_resumed(folder: Path, step: int, changes: list[str], monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A run that was stopped at a step and resumed with changes."""
    before = stopping.StopCoordinator.before

    def noted(self: stopping.StopCoordinator, number: int) -> stopping.Decision:
        TAKEN.append(number)
        return before(self, number)

    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_CHECKS", 0.0)  # before each step
    monkeypatch.setattr(stopping.StopCoordinator, "before", noted)
    TAKEN.clear()
    runs = folder / f"stopped-{step}"
    words = [*DEBUG, "--runs", str(runs)]
    main(["run", "tiny.yaml", *COMMON, "task._target_=tests.launch.start.test_fork.Stops", f"task.after={step}",
          f"task.runs={runs}", *words])
    run = RunDir((runs / "tiny" / "latest").resolve())
    assert Saved.require(run.attempt(0).saved) == Saved(state="stopped", step=step)
    assert main(["resume", str(run.path), *changes, *words]) == 0
    return run


def sent(run: RunDir) -> dict[str, list[tuple[int, float]]]:
    """What trackers are sent of these curves."""
    fork, found = Fork.read(run.fork), dict[str, list[tuple[int, float]]]()
    for row in Rows(run.tensorboard, fork.curves if fork else None).new():
        for name, value in row.values.items():
            if "speed" not in name:
                found.setdefault(name, []).append((row.step, value))
    return found


def without_times(result: Result) -> Result:
    changes = tuple(replace(change, attempt=0, time=0.0, by="fork") for change in result.changes)
    return replace(result, changes=changes)


@pytest.mark.parametrize(("at", "step", "changes", "start"), [
    ("24", 24, RATE, 24), ("60%", 25, BATCH, 24), ("16", 16, ADAM, 15), ("17", HEAD, ADAM, HEAD)],
    ids=["at a checkpoint", "between checkpoints", "in an earlier phase", "at the end of a phase"])
def test_a_fork_is_the_run_that_was_stopped_and_resumed(folder: Path, parent: RunDir, at: str, step: int, start: int,
                                                        changes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(parent)
    assert main(["fork", parent.id, "--at", at, *changes, *DEBUG]) == 0
    child = latest(folder)
    assert contents(parent) == before
    other = stopped_and_resumed(folder, step, changes, monkeypatch)
    mine, theirs = (without_times(Result.require(run.result)) for run in (child, other))
    assert mine == theirs
    assert {change.step for change in mine.changes} == {step}
    assert curves(child) == curves(other) == sent(child)
    assert (record := Fork.require(child.fork)).start == start
    assert record.text == f"{parent.id} at step {step}"
    attempts = [Saved.require(attempt.saved) for attempt in child.all_attempts()]
    assert attempts == [*[Saved(state="stopped", step=step, continues=True)] * (start < step),
                        Saved(state="finished", step=mine.steps)]


def contents(run: RunDir) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}


def test_without_a_change_the_rest_is_repeated(folder: Path, parent: RunDir) -> None:
    """Also from a run whose checkpoints from before the step are gone, and by the function."""
    pruned = RunDir(parent.path.with_name("20260101-000000-aaaaa"))
    shutil.copytree(parent.path, pruned.path)
    for step in saved_steps(pruned):
        if step < 30:
            shutil.rmtree(checkpoint_path(pruned, step))
    with pytest.raises(SystemExit, match="2"):
        fork(pruned, 20, options=["--no-such-option"])
    child = fork(pruned, 20, options=DEBUG)
    assert child == latest(folder)
    record = Fork.require(child.fork)
    assert (record.start, record.data) == (0, (progress_at(checkpoint_path(parent, STEPS)) or Progress()).data)
    assert record.data
    assert Result.require(child.result) == Result.require(parent.result)
    assert curves(child)["validation/loss"] == curves(parent)["validation/loss"]


def test_a_fork_of_a_fork_has_the_history_of_both(folder: Path, parent: RunDir, capsys: pytest.CaptureFixture[str]
                                                  ) -> None:
    """Its parent has changed at 24; before that, it is its grandparent. And it needs neither once it has started."""
    first = fork(parent, 24, RATE, options=DEBUG)
    for step in saved_steps(first):
        if step < 40:
            shutil.rmtree(checkpoint_path(first, step))
    again = fork(first, 33, options=DEBUG)
    assert curves(first) == curves(again) == sent(again)
    assert [part.until for part in Fork.require(again.fork).parts] == [24, 33]
    (change,), (same,) = (Result.require(run.result).changes for run in (first, again))
    assert replace(change, attempt=0, time=0, by="resume") == replace(same, attempt=0, time=0)
    assert replace(Result.require(first.result), changes=()) == replace(Result.require(again.result), changes=())
    capsys.readouterr()
    before = fork(first, "20", options=DEBUG)
    assert replace(Result.require(before.result), changes=()) == Result.require(parent.result)
    assert "was changed at step 24 and later: the fork has the values of before" in " ".join(
        capsys.readouterr().out.split())


def test_a_corrupted_checkpoint_is_not_taken(folder: Path, parent: RunDir) -> None:
    """Nor one whose best weights are gone."""
    source = RunDir(parent.path.with_name("20260102-000000-bbbbb"))
    shutil.copytree(parent.path, source.path)
    (checkpoint_path(source, 24) / "model.safetensors").write_bytes(b"")
    assert (progress_at(checkpoint_path(source, 21)) or Progress()).best["step"] == HEAD
    shutil.rmtree(checkpoint_path(source, HEAD))
    child = fork(source, 26, options=DEBUG)
    assert Fork.require(child.fork).start == 15
    assert Result.require(child.result) == Result.require(parent.result)
    assert checkpoint_path(source, 24).exists(), "the parent's own resume decides about it"


def test_a_fork_whose_checkpoint_is_lost_in_its_prefix_starts_the_right_part_again(
        folder: Path, parent: RunDir) -> None:
    """The newest checkpoint belongs to the fork's own config, and the older one to the parent's."""
    child = fork(parent, 25, RATE, options=DEBUG)
    expected = Result.require(child.result)
    for step in saved_steps(child):
        if step > 25:
            shutil.rmtree(checkpoint_path(child, step))
    (checkpoint_path(child, 25) / "model.safetensors").write_bytes(b"")
    child.result.unlink()
    write_state(child, "failed")
    with pytest.raises(Exception, match="the run continues from step-00000024, where its config was another one"):
        main(["resume", str(child.path), *DEBUG])
    assert main(["resume", str(child.path), *DEBUG]) == 0
    assert without_times(Result.require(child.result)) == without_times(expected)


def test_a_fork_replays_the_steps_on_both_sides_of_its_change(folder: Path, parent: RunDir,
                                                              capsys: pytest.CaptureFixture[str]) -> None:
    """Those that it has computed itself: the last one before it has the parent's config."""
    child = fork(parent, 25, RATE, options=DEBUG)
    log = StepLog.read(child)
    for step, run in ((25, parent), (27, child)):
        with scratch(interval(child, step, log)) as replayed:
            assert read(replayed.config).phases == read(run.config).phases
            train(JobPlan.require(replayed.plan))
            assert StepLog.read(replayed).step(step) == log.step(step)
    assert main(["replay", str(child.path), "--step", "23"]) == 2
    assert "forked from" in " ".join(capsys.readouterr().err.split())


def test_a_fork_is_shown_as_a_child(folder: Path, parent: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    child = fork(parent, 24, SHORT, options=DEBUG)
    text = f"{parent.id} at step 24"
    capsys.readouterr()
    assert main(["status", child.id]) == 0
    assert f"fork of         {text}\n" in capsys.readouterr().out
    assert main(["ls"]) == 0
    header, first, *_, last = capsys.readouterr().out.splitlines()
    assert header.endswith("  fork of")
    assert first.startswith(child.id)
    assert first.endswith(f"  {parent.id[-5:]} at 24")
    assert not last.endswith(" at 24")
    assert facts(View.read(child))["fork"] == {"parent": parent.id, "folder": str(parent.path), "step": 24}
    assert main(["report", child.id, "--out", "fork.html"]) == 0
    page = Path("fork.html").read_text()
    assert text in page
    assert f"of run {parent.id}" in page


def test_a_fork_of_a_running_run_does_not_need_it(folder: Path, parent: RunDir) -> None:
    """Its files are links to those of the checkpoint, which the parent may remove."""
    source = RunDir(parent.path.with_name("20260103-000000-ccccc"))
    shutil.copytree(parent.path, source.path)
    write_state(source, "running")
    child = fork(source, 24, SHORT, options=[*DEBUG, "--name", "other"])
    assert child.path.parent.name == "other"
    linked = checkpoint_path(child, HEAD) / "model.safetensors"
    assert linked.samefile(checkpoint_path(source, HEAD) / "model.safetensors")
    shutil.rmtree(source.path)
    assert main(["verify", str(child.path)]) == 0


ERRORS = {
    "0": """\
error: a fork shares at least one step with its run
  where  command line
  given  --at 0
  fix    Start a new run: {rerun} KEY=VALUE
""",
    "0.5 %": """\
error: --at is a step of the run, or a percentage of its steps
  where  command line
  given  --at 0.5 %
  fix    For example 600 or 60%.
""",
    "43": """\
error: run {id} has not reached step 43
  where  {path}
  given  --at 43; it has saved 42 steps
  fix    Fork it at step 42 at most.
""",
    "42": """\
error: nothing is left to train after step 42 of run {id}
  where  {path}
  given  --at 42
  fix    Fork it at an earlier step, or train the fork for longer:
         phases.NAME.epochs=N
""",
    "20 phases.head.epochs=3 seed=3 phases.finetune.freeze=[x]": """\
error: seed cannot change on resume: the order of the samples and all random
       numbers follow from it
  where  command line (seed)
  given  0 in the run, 3 now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE

error: phases.head.epochs cannot change on resume: phase head is finished
  where  command line (phases.head.epochs)
  given  2.0 in the run, 3.0 now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE

error: phases.finetune.freeze cannot change on resume: the optimizer's saved
       state belongs to what the phase has trained so far
  where  command line (phases.finetune.freeze)
  given  [] in the run, [x] now
  fix    Leave it out, or start a new run: drumbeat rerun RUN KEY=VALUE
""",
}


@pytest.mark.parametrize("at", ERRORS)
def test_what_cannot_be_forked_is_one_screen(parent: RunDir, at: str, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sorted(parent.all_runs.glob("*/*"))
    step, *words = [at] if at == "0.5 %" else at.split()
    capsys.readouterr()
    assert main(["fork", parent.id, "--at", step, *words, "--debug"]) == 2
    assert unwrapped(capsys.readouterr().err) == unwrapped(ERRORS[at].format(
        id=parent.id, path=parent.path, rerun=command("rerun", parent)))
    assert sorted(parent.all_runs.glob("*/*")) == runs


def unwrapped(text: str) -> list[str]:
    return text.split()


def test_a_run_that_is_not_there_yet(parent: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    source = RunDir(parent.path.with_name("20260104-000000-ddddd"))
    shutil.copytree(parent.path, source.path)
    for step in saved_steps(source):
        if step > 24:
            shutil.rmtree(checkpoint_path(source, step))
    for state, advice in (("running", "Or wait until it has."),
                          ("stopped", f"Or resume it first: {command('resume', source)}")):
        write_state(source, state)  # type: ignore[arg-type]
        assert main(["fork", str(source.path), "--at", "30"]) == 2
        assert unwrapped(capsys.readouterr().err)[-len(advice.split()):] == advice.split()
    shutil.rmtree(source.checkpoints)
    assert main(["fork", str(source.path), "--at", "30%"]) == 2
    assert "it has saved 0 steps fix Resume it first: " in " ".join(capsys.readouterr().err.split())
    for attempt in source.all_attempts():
        attempt.heartbeat.unlink()
    assert main(["fork", str(source.path), "--at", "30%"]) == 2
    assert f"the number of steps of run {source.id} is not known" in capsys.readouterr().err


def test_a_dry_run_says_what_is_computed_again(parent: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fork", parent.id, "--at", "25", *RATE, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "lr: 0.01" in out
    assert (f"the fork computes 1 of the 25 steps that it shares with run {parent.id} again, from its checkpoint of "
            "step 24." in out.replace("\n#", ""))


@pytest.mark.slow
def test_kills_before_and_after_the_step_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a fork that begins without a checkpoint, started by the launcher."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path)
    Path("fuse").mkdir()
    for number in range(2):
        Path("fuse", f"blown-{number}").touch()  # runs in this process are not disturbed
    assert main(["run", "tiny.yaml", *COMMON, *DEBUG, "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}/fuse",
                 "task.at=[8,20]"]) == 0
    parent = latest(tmp_path)
    quiet = fork(parent, 12, RATE, options=DEBUG)
    shutil.rmtree("fuse")
    Path("fuse").mkdir()
    done = run_python([sys.executable, "-m", "drumbeat", "fork", parent.id, "--at", "12", *RATE, "--procs", "1",
                       "--no-preflight"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    killed = latest(tmp_path)
    assert without_times(Result.require(killed.result)) == without_times(Result.require(quiet.result))
    verdicts = [Verdict.require(attempt.verdict) for attempt in killed.all_attempts()]
    assert [(verdict.outcome, verdict.next) for verdict in verdicts] == [
        ("failed", "restart"), ("stopped", "restart"), ("failed", "restart"), ("finished", "leave")]
    assert "restarting: step 12 is reached, from which on the config is another one\n" in done.stdout

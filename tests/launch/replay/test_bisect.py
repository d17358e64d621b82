"""`drumbeat bisect`: finds the step in which two runs differ, and what differs in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.plan import Topology
from drumbeat.configs.run.replay_records import ReplayedStep
from drumbeat.configs.run.step_log import StepLog, first_difference, header
from drumbeat.configs.run.versions import AttemptVersions, Versions
from drumbeat.data.loader import one_thread
from drumbeat.launch.commands.main import main
from drumbeat.launch.replay.bisect import Replayed, differing_keys, found_in
from tests.launch.replay.test_replay import content
from tests.runs import write_plan, write_state
from tests.tiny import drumbeat, latest, write_config
from tests.trainers.test_saving import parts, take

STEPS = 52


def train(folder: Path, planted: int | None = None, bit: int = 0) -> StepLog:
    """Steps of a real phase runner and saver; in one of them, the last bits of the inputs are others."""
    torch.manual_seed(0)
    run = RunDir(folder)
    saver, runner = parts(run)
    with one_thread():
        for step in range(1, STEPS + 1):
            value = torch.tensor(1.0 + 1 / step)
            if step == planted:
                value.view(torch.int32)[()] ^= 1 << bit
            take(saver, runner, float(value))
    saver.settle(runner)
    saver.steps.flush()
    return StepLog.read(run)


def test_fifty_planted_changes_are_found_to_the_step(tmp_path: Path) -> None:
    as_it_was = train(tmp_path / "one")
    assert as_it_was.last == STEPS
    assert first_difference(as_it_was, train(tmp_path / "same")) is None
    found = [first_difference(as_it_was, train(tmp_path / str(step), step, bit=6 + step % 16))
             for step in range(2, STEPS)]
    assert found == [*range(2, STEPS)]
    assert len(found) == 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs whose models differ in a layer's gradient, from the second phase on, which begins with step 6."""
    folder = tmp_path_factory.mktemp("bisect")
    write_config(folder)
    for name, model in (("plain", "Net"), ("scaled", "Scaled")):
        drumbeat(folder, "tiny.yaml", f"model._target_=tests.tiny.{model}", "phases.head.epochs=0.5",
                 "phases.finetune.epochs=0.4", "--debug", "--name", name)
    return folder


@pytest.mark.slow
def test_the_layer_whose_gradient_differs_is_named(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one, other = latest(folder, "plain"), latest(folder, "scaled")
    before = content(one), content(other)
    assert main(["bisect", str(one.path), str(other.path)]) == 1
    assert (content(one), content(other)) == before
    lines = capfd.readouterr().out.splitlines()
    records = [StepLog.read(run).step(6) for run in (one, other)]
    rows = [f"  in {name}     loss {found.loss:.9g}, gradient {found.digest:016x}"
            for name, found in zip("AB", records, strict=True) if found]
    assert lines == [
        f"run A      plain/{one.id}: 9 steps", f"run B      scaled/{other.id}: 9 steps",
        "differs    model._target_: tests.tiny.Net in A, tests.tiny.Scaled in B",
        "step       6 is the first of 9 that differs", *rows,
        "replay A   step 6 from the checkpoint at step 5, on 1 rank",
        "replay B   step 6 from the checkpoint at step 5, on 1 rank",
        "samples    both used the same 10",
        "layer      head.3.weight is the first in the backward pass whose gradient",
        "           differs: 1 of 12 parameters"]


def made(folder: Path, name: str, *digests: int, ranks: int = 1, size: int = 8) -> RunDir:
    """A run folder with a log."""
    run = RunDir(folder / "runs" / name / f"20260101-000000-{name}")
    write_plan(run)
    run.config.write_text(f"name: x\nbatch_size: {size}\nmodel: {{_target_: x}}\nphases: {{}}\n")
    write_state(run, "finished")
    rest = b"\7" * 4 * ranks * (ranks > 1)
    run.claim_attempt().steps.write_bytes(header(1, ranks) + b"".join(
        digest.to_bytes(16, "little") + rest for digest in digests))
    return run


def test_runs_of_different_lengths(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = made(tmp_path, "aaaaa", 4, 6, 8), made(tmp_path, "bbbbb", 4, 6, ranks=2)
    assert main(["bisect", str(one.path), str(other.path), "--logs-only"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "verdict    no step differs up to step 2, which is where the shorter one ends")
    assert main(["bisect", str(one.path), str(one.path), "--logs-only"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "verdict    no step differs up to step 3"


def test_a_skipped_step_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = made(tmp_path, "aaaaa", 4, 6, 6), made(tmp_path, "bbbbb", 4, 7, 6)
    assert main(["bisect", str(one.path), str(other.path), "--logs-only"]) == 1
    out = capsys.readouterr().out
    assert "run B      bbbbb/20260101-000000-bbbbb: 3 steps, 1 of them skipped\n" in out
    assert "step       2 is the first of 3 that differs\n" in out
    assert out.rstrip().endswith(", skipped")


def test_what_may_be_the_cause(tmp_path: Path) -> None:
    one, other = made(tmp_path, "aaaaa", 4), made(tmp_path, "bbbbb", 4, size=9)
    for run, torch_version in ((one, "2.14.0"), (other, "2.14.1")):
        AttemptVersions(versions=Versions(torch=torch_version, device="cpu")).write(run.attempt(0).versions)
    assert differing_keys(one, other) == ["batch_size: 8 in A, 9 in B", "torch was 2.14.0 in A and is 2.14.1 in B"]
    assert differing_keys(one, one) == []


def test_what_cannot_be_the_cause_is_not_told(tmp_path: Path) -> None:
    one, other = made(tmp_path, "aaaaa", 4), made(tmp_path, "bbbbb", 4)
    with other.config.open("a") as file:
        file.write("launch: {procs: 1, nodes: 1}\ntracking: {every_steps: 3}\ncheckpoints: {keep: 7}\n")
    assert differing_keys(one, other) == []
    write_plan(other, topology=Topology(nodes=1, ranks_per_node=1, device="cpu", cpus_per_rank=2))
    assert differing_keys(one, other) == ["ranks: 2 in A, 1 in B", "threads of a rank: 1 in A, 2 in B"]


def test_files_of_the_code_that_differ_are_named(tmp_path: Path) -> None:
    """Outside git as well, where the copies have neither a commit nor a number of changed files."""
    one, other = made(tmp_path, "aaaaa", 4), made(tmp_path, "bbbbb", 4)
    for run, line in ((one, "SiLU"), (other, "ReLU")):
        for name, text in (("nets.py", line), ("same.py", "x")):
            file = run.path / "code" / "lab" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        CodeSnapshot(trees=(CodeTree(name="lab", folder="/lab", files=2),), home="",
                     folder="lab").write(run.path / "code" / "snapshot.json")
    assert differing_keys(one, other) == ["code: lab/nets.py"]
    assert differing_keys(one, made(tmp_path, "ccccc", 4)) == ["code: lab, 2 files in A, not copied in B"]


def test_a_run_without_a_log_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = made(tmp_path, "aaaaa", 4), made(tmp_path, "bbbbb")
    assert main(["bisect", str(one.path), str(other.path)]) == 2
    assert capsys.readouterr().err.startswith("error: run 20260101-000000-bbbbb has no step log\n")


def step(*positions: int, shift: int = 0, **gradients: str) -> Replayed:
    return Replayed(exact=True, ranks=[ReplayedStep(
        phase="only", positions=positions, indices=tuple(one + shift for one in positions),
        names=tuple(f"{one}.png" for one in positions), gradients=gradients)])


def test_samples_and_layers_that_differ_are_named() -> None:
    assert dict(found_in(step(3, 4, a="1", b="2"), step(3, 4, a="1", b="2"))) == {
        "samples": "both used the same 2", "layer": "all parameters have the same gradient: the loss alone differs"}
    assert dict(found_in(step(3, 4, a="1", b="2", c="3"), step(4, 5, shift=1, a="0", b="0", c="3"))) == {
        "samples": "3 differ; position 3: sample 3 (3.png) in A, none in B; position 4: sample 4 (4.png) in A, sample "
                   "5 (4.png) in B; position 5: none in A, sample 6 (5.png) in B",
        "layer": "b is the first in the backward pass whose gradient differs, then a: 2 of 3 parameters"}

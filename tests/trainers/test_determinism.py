"""Operations without a deterministic implementation are recorded once per run, and every claim of exactness names
them."""

from __future__ import annotations

import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from drumbeat.configs.run.determinism import Operation, claim, operations, record
from drumbeat.configs.run.files import read_object
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.launch.commands.main import main
from drumbeat.launch.drill.outcome import conclusion
from drumbeat.trainers.commands import compare, verify
from drumbeat.trainers.determinism import recorded_operations
from drumbeat.trainers.report.report import report
from tests.tiny import drumbeat, latest, write_config

PUT = "put_ ran without a deterministic implementation: repeating this run may give different bits"


@pytest.mark.parametrize(("warning", "name"), [
    ("cumsum_cuda_kernel does not have a deterministic implementation, but you set", "cumsum_cuda_kernel"),
    ("Flash Attention defaults to a non-deterministic algorithm. To explicitly enable", "Flash Attention"),
    ("Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or `at::Context::set"
     "DeterministicAlgorithms(true)`, but this operation is not deterministic because it uses CuBLAS and you have CUDA",
     "CuBLAS"),
])
def test_each_of_torchs_warnings_names_its_operation(tmp_path: Path, warning: str, name: str) -> None:
    with recorded_operations(RunDir(tmp_path), attempt=0, rank=0):
        warnings.warn(warning, stacklevel=1)
    assert operations(RunDir(tmp_path)) == [name]


def test_an_operation_that_torch_warns_of_is_recorded_and_printed_once(
        tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with recorded_operations(RunDir(tmp_path), attempt=2, rank=3):
            for _ in range(3):
                weight = torch.ones(4, requires_grad=True)
                weight.put(torch.tensor([1]), torch.ones(1)).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    (file,) = (tmp_path / "nondeterministic").iterdir()
    found = read_object(file) or {}
    assert (found["name"], found["attempt"], found["rank"]) == ("put_", 2, 3)
    assert found["line"].startswith(f"{__file__}:")
    printed = capsys.readouterr()
    assert printed.out == f"note: put_ ran without a deterministic implementation, at {found['line']}\n"
    assert printed.err == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_an_operation_of_the_backward_pass_on_a_gpu_is_recorded(tmp_path: Path) -> None:
    """On a GPU the backward pass has its own threads."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with recorded_operations(RunDir(tmp_path), attempt=0, rank=0):
            images = torch.rand(1, 1, 8, 8, device="cuda", requires_grad=True)
            torch.nn.functional.adaptive_max_pool2d(images, 4).sum().backward()
    finally:
        torch.use_deterministic_algorithms(False)
    assert operations(RunDir(tmp_path)) == ["adaptive_max_pool2d_backward_cuda"]


def test_other_warnings_are_shown_as_before(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="something else"), recorded_operations(RunDir(tmp_path), attempt=0, rank=0):
        warnings.warn("something else", stacklevel=1)
    assert operations(RunDir(tmp_path)) == []


def test_a_record_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "not mounted")
    with recorded_operations(run, attempt=0, rank=0):
        for _ in range(2):
            warnings.warn("put_ does not have a deterministic implementation", stacklevel=1)
            run.path.mkdir(exist_ok=True)
    assert operations(run) == ["put_"]


def test_ranks_and_attempts_share_one_record(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for attempt, rank, name in ((0, 1, "put_"), (1, 0, "put_"), (1, 0, "Flash Attention")):
        record(run, Operation(name=name, attempt=attempt, rank=rank, line="net.py:7"))
    assert claim(run) == f"Flash Attention, {PUT}"
    assert Operation.require(run.nondeterministic / "put_.json").attempt == 0


def test_the_drill_names_them_whether_or_not_it_passes(tmp_path: Path) -> None:
    straight, disturbed = RunDir(tmp_path / "1"), RunDir(tmp_path / "2")
    for run in (straight, disturbed):
        run.path.mkdir()
        record(run, Operation(name="put_", attempt=0, rank=0, line="net.py:7"))
    assert conclusion([], [], [straight, disturbed]) == [
        "nothing lost: the same weights bit for bit, the same samples, each step once in the curves",
        f"note           {PUT}"]
    assert conclusion(["2: weights_sha256: b instead of a"], [], [straight, disturbed]) == [
        "LOST           2: weights_sha256: b instead of a", f"note           {PUT}"]


@pytest.mark.slow
def test_every_claim_of_exactness_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two ranks, of which only the second runs such an operation."""
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "model._target_=tests.tiny.PutsOnRank1",
                    "phases.head.epochs=0.5", "phases.finetune.epochs=0.5")
    run = latest(tmp_path)
    assert Operation.require(run.nondeterministic / "put_.json").rank == 1
    assert f"note       {PUT[:PUT.index(' bits')]}" in " ".join(done.stdout.split("\n           ")), done.stdout
    result = Result.require(run.result)
    assert (result.deterministic, result.nondeterministic_operations) == (True, ("put_",))
    assert "does not have a deterministic implementation" not in run.attempt(0).log(1).read_text()

    assert main(["status", str(run.path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "determinism put_ ran without a deterministic implementation" in shown
    assert main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["nondeterministic_operations"] == ["put_"]
    assert verify.main(str(run.path)) == 0
    assert " ".join(capsys.readouterr().out.split()).endswith(f"note {PUT}; the samples are the same")
    assert PUT in report(run)

    other = RunDir(tmp_path / "without the operation")
    shutil.copytree(run.path, other.path)
    replace(result, nondeterministic_operations=()).write(other.result)
    compare.main(str(other.path), str(run.path), exact=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert printed.err == f"note: {PUT}\n"


@pytest.mark.slow
def test_a_run_with_deterministic_false_makes_no_claim(tmp_path: Path) -> None:
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--debug", "deterministic=false", "phases.head.epochs=0.5",
                    "phases.finetune=null")
    run = latest(tmp_path)
    note = "deterministic is false: repeating this run may give different bits"
    assert done.stdout.count(f"note       {note}") == 2, "in the header and at the end"
    assert claim(run) == note
    assert not Result.require(run.result).deterministic

"""The weights that a run starts from: a file, a run or a checkpoint; once, on all ranks, and not again on resume."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.initialize import Initialize
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.rank_records import StartingWeights
from drumbeat.trainers import starting_weights
from drumbeat.trainers.checkpoints.extra_state import as_tensors
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.commands.export import export
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.starting_weights import check_fitting, fitting, initialize
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.tiny import CONFIG
from tests.trainers.in_process import ALONE, attempted, new_run

WEIGHT = torch.arange(12.0).reshape(3, 4)


def saved(folder: Path) -> Path:
    """The weights of the model of `in_process`, as a training program wraps them."""
    file = folder / "weights.pth"
    torch.save({"state_dict": {"module.weight": WEIGHT, "module.bias": torch.ones(3)}, "epoch": 7}, file)
    return file


def model(outputs: int = 3) -> nn.Module:
    return nn.Linear(4, outputs)


def test_a_run_starts_from_a_file_which_a_resume_does_not_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]
                                                               ) -> None:
    """Stopped and resumed without the file, it ends with the weights of the run that was not stopped."""
    file = saved(tmp_path)
    change = [f"initialize.weights={file}"]
    straight, losses = attempted(new_run(tmp_path / "straight"), changes=change)
    text = capsys.readouterr().out
    assert f"weights from {file}\n  taken     bias, weight: 2 tensors\n" in text
    run = new_run(tmp_path / "stopped")
    _, before = attempted(run, stop_after=5, changes=change)
    file.unlink()
    capsys.readouterr()
    resumed, after = attempted(run, changes=change)
    assert "weights from" not in capsys.readouterr().out
    assert before + after == losses
    assert weights_sha256(resumed.model.state_dict()) == weights_sha256(straight.model.state_dict())
    random, _ = attempted(new_run(tmp_path / "random"))
    assert weights_sha256(random.model.state_dict()) != weights_sha256(straight.model.state_dict())
    record = StartingWeights.require(run.starting_weights)
    assert (record.weights, record.taken) == (str(file), {"weight": "weight", "bias": "bias"})
    assert not RunDir(tmp_path / "random").starting_weights.exists()


def test_a_fork_from_the_beginning_starts_from_the_weights_of_its_parent(tmp_path: Path) -> None:
    section, run = Initialize(weights=str(saved(tmp_path))), RunDir(tmp_path)
    initialize(run, section, model(), ALONE)
    Fork(parent="20260101-100000-aaaaa", folder="runs", step=3, start=0, phase=0, parts=()).write(run.fork)
    initialize(run, section, model(), ALONE)
    torch.save({"weight": WEIGHT + 1, "bias": torch.ones(3)}, tmp_path / "weights.pth")
    with pytest.raises(PreflightError, match="the fork would start from other weights than its parent"):
        initialize(run, section, model(), ALONE)


@pytest.mark.parametrize("name", ["run", "checkpoint", "folder", "export"])
def test_the_weights_of_a_run(images: RunDir, tmp_path: Path, name: str) -> None:
    """Its best checkpoint, one of its checkpoints, and what `drumbeat export` writes; the digest is a result's."""
    from tests.trainers.saved_runs import Small

    export(images, tmp_path / "weights.pt", "best")
    export(images, tmp_path / "model.safetensors", "best")
    source = {"run": images.path, "checkpoint": images.checkpoints / "step-00000003", "folder": tmp_path,
              "export": tmp_path / "weights.pt"}
    new, run = Small(classes=2), RunDir(tmp_path / "new")
    run.path.mkdir()
    initialize(run, Initialize(weights=str(source[name]), strict=True), new, ALONE)
    exported = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert weights_sha256(new.state_dict()) == weights_sha256(exported)
    assert StartingWeights.require(run.starting_weights).sha256 == weights_sha256(exported)


def test_a_corrupted_checkpoint_is_not_used(images: RunDir) -> None:
    file = images.checkpoints / "step-00000003" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(PreflightError, match=r"the checkpoint is corrupted: the digest of model\.safetensors"):
        check_fitting(Initialize(weights=str(images.path)), model())


@pytest.mark.parametrize(("section", "outputs", "table"), [
    (lambda file: Initialize(weights=file, only=["bias"]), 3, "taken     bias: 1 tensor\n"
     "  left out  weight: 1 tensor\n  new       weight: 1 tensor"),
    (lambda file: Initialize(weights=file), 3, "taken     bias, weight: 2 tensors"),
    (lambda file: Initialize(weights=file, rename={"weight": "other"}), 3, "taken     bias: 1 tensor\n"
     "  left out  other: 1 tensor\n  new       weight: 1 tensor"),
])
def test_the_table_tells_what_is_taken_left_out_and_new(tmp_path: Path, section: Callable[[str], Initialize],
                                                        outputs: int, table: str) -> None:
    found = check_fitting(section(str(saved(tmp_path))), model(outputs))
    assert found.endswith(table)


@pytest.mark.parametrize(("section", "outputs", "what", "fix"), [
    ({"weights": "gone.pth"}, 3, r"gone\.pth does not exist", "$SCRATCH/FILE"),
    ({}, 5, "none of the 2 tensors has the name and the shape", "initialize.rename={OLD: NEW}"),
    ({"only": ["bais"]}, 3, "the model has nothing that fits 'bais'", "Did you mean 'bias'?"),
    ({"rename": {"wieght": "x"}}, 3, "no name in the file begins with 'wieght'; did you mean 'weight'?", ""),
    ({"rename": {"weight": "x"}, "strict": True}, 3, "not all weights fit: weight of the network", "strict=false"),
    ({"weights": "ResNet9_Weights.V1"}, 3, "torchvision has no weights 'ResNet9_Weights.V1'", ""),
    ({"weights": "."}, 3, "the run has no weights: there are no checkpoints yet", ""),
])
def test_faults_name_what_is_wrong_and_what_to_do(tmp_path: Path, section: dict[str, object], outputs: int, what: str,
                                                  fix: str) -> None:
    with pytest.raises(PreflightError, match=what.replace("?", r"\?")) as error:
        check_fitting(Initialize(**{"weights": str(saved(tmp_path)), **section}), model(outputs))  # type: ignore[arg-type]
    assert error.value.faults[0].where.startswith("initialize.")
    assert fix in error.value.faults[0].remedy
    assert len(str(error.value).splitlines()) <= 12


class Counted(nn.Linear):
    """Its extra state grows."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.seen: list[int] = []

    def get_extra_state(self) -> list[int]:
        return self.seen

    def set_extra_state(self, state: list[int]) -> None:
        self.seen = state


def test_extra_state_says_nothing_about_the_weights_beside_it(tmp_path: Path) -> None:
    """Neither that of another size nor a file without it leaves a layer random. A new run has its own."""
    source = as_tensors(Counted())
    source.seen = [1, 2, 3]  # type: ignore[assignment]
    save_file(source.state_dict(), tmp_path / "weights.safetensors")
    torch.save(nn.Linear(4, 3).state_dict(), tmp_path / "weights.pth")
    for name in ("weights.safetensors", "weights.pth"):
        network = as_tensors(Counted())
        initialize(RunDir(tmp_path), Initialize(weights=str(tmp_path / name), strict=True), network, ALONE)
        assert set(StartingWeights.require(tmp_path / "starting_weights.json").taken) == {"weight", "bias"}
        assert network.seen == []


def test_a_tied_weight_that_is_taken_is_not_new(tmp_path: Path) -> None:
    """Although `only` names one of its two places."""
    network = nn.ModuleDict({"embed": nn.Embedding(3, 4), "decoder": nn.Linear(4, 3, bias=False)})
    network["decoder"].weight = network["embed"].weight
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    fits = fitting(Initialize(weights=str(tmp_path / "weights.pth"), only=["embed"]), network)
    assert (fits.match.taken, fits.match.new) == ({"embed.weight": "embed.weight"}, [])


def test_a_path_that_begins_with_a_variable_is_that_of_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch
                                                                ) -> None:
    """On a machine without it the check says so; where the run starts, the variable must be set."""
    section = Initialize(weights="$INIT_SCRATCH/weights.pth")
    assert re.fullmatch(r"the weights \$INIT_SCRATCH/weights\.pth are not on \S+, so whether they fit is known when "
                        "the run starts", check_fitting(section, model()))
    with pytest.raises(PreflightError, match="the variable INIT_SCRATCH is not set"):
        initialize(RunDir(tmp_path), section, model(), ALONE)
    saved(tmp_path)
    monkeypatch.setenv("INIT_SCRATCH", str(tmp_path))
    assert check_fitting(section, model()).endswith("taken     bias, weight: 2 tensors")


def rank_0_reads(world: World, folder: str) -> None:
    """Rank 1 fails if it reads."""
    if world.rank:
        def refused(section: Initialize, model: nn.Module) -> starting_weights.Fitting:
            raise AssertionError("rank 1 reads the file")

        starting_weights.fitting = refused
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    nn.init.constant_(network[0].weight, world.rank)
    initialize(RunDir(Path(folder)), Initialize(weights=f"{folder}/weights.pth"), network, world)
    assert torch.equal(network[0].weight, WEIGHT)


def test_rank_0_reads_for_all(tmp_path: Path) -> None:
    torch.save({"0.weight": WEIGHT, "0.bias": torch.ones(3)}, tmp_path / "weights.pth")
    on_ranks(2, rank_0_reads, tmp_path)


def test_the_preflight_check_tells_and_finds_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Together with all other faults."""
    from drumbeat.configs.load import load
    from tests.tiny import Net

    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    torch.save(Net(width=8).backbone.state_dict(), "backbone.pth")
    words = ["initialize.weights=backbone.pth", "model._target_=tests.tiny.Net"]
    notes = "\n".join(preflight(load("tiny.yaml", words).config)["notes"])
    assert "weights from backbone.pth\n  taken     backbone: 7 tensors\n  new       head: " in notes
    with pytest.raises(PreflightError) as error:
        preflight(load("tiny.yaml", ["initialize.weights=gone.pth", "phases.head.freeze=[bakbone]"]).config)
    assert [fault.where for fault in error.value.faults] == ["phases.head.freeze", "initialize.weights"]

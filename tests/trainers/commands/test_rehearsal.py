"""The rehearsal: a step, an evaluation, a save, a load and another step, before a run is submitted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.schema import Config
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.tasks import Classification, Results
from tests.tiny import Net, Pictures, write_config
from tests.trainers.saved_runs import TEXTS, write_texts

HERE = "tests.trainers.commands.test_rehearsal"
OWN = "tests.trainers.own_optimizers"


def config(folder: Path, *changes: str) -> Config:
    return load(write_config(folder), ["phases.head.freeze=[]", *changes]).config


def fault(folder: Path, *changes: str, world_size: int = 1) -> tuple[str, str, str]:
    """What is wrong, where, and what was given."""
    with pytest.raises(PreflightError) as caught:
        preflight(config(folder, *changes), world_size=world_size)
    (found,) = caught.value.faults
    return found.what, found.where, found.given


def model(name: str) -> str:
    return f"model._target_={HERE}.{name}"


def optimizer(name: str, phase: str = "finetune", module: str = HERE) -> str:
    return f"phases.{phase}.optimizer={{_target_: {module}.{name}, lr: 0.05}}"


@pytest.mark.parametrize("name", ["Chained", "Forgetful", "Lookahead", "Averaged", "Wide"])
def test_optimizers_whose_state_is_saved(tmp_path: Path, name: str) -> None:
    assert preflight(config(tmp_path, "model._target_=tests.tiny.Linear", optimizer(name, module=OWN)))["notes"] == []


class Counts(torch.optim.SGD):
    """Its state is a number in an attribute, which its state dict does not tell."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.taken = 0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.taken += 1
        super().step(closure)


class SlowById(torch.optim.SGD):
    """Slow weights by the address of the fast ones, as in a common implementation of Lookahead."""

    def __init__(self, parameters: Iterable[Tensor], lr: float) -> None:
        super().__init__(parameters, lr=lr)
        self.slow: dict[int, Tensor] = {}

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step(closure)
        for one in self.param_groups[0]["params"]:
            self.slow.setdefault(id(one), one.detach().clone())

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"slow": self.slow}


class Holds(torch.optim.SGD):
    """An object in its state."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step(closure)
        for one in self.param_groups[0]["params"]:
            self.state[one]["file"] = Path("here")


def test_state_in_an_attribute(tmp_path: Path) -> None:
    what, where, given = fault(tmp_path, optimizer("Counts", "head"))
    assert (what, where) == ("a checkpoint does not hold all state of the optimizer", "phases.head.optimizer")
    assert given == "optimizer.taken: 2 without a stop, 1 after a resume"


def test_state_that_is_told_but_not_found_again(tmp_path: Path) -> None:
    _, where, given = fault(tmp_path, optimizer("SlowById"))
    assert where == "phases.finetune.optimizer"
    assert given.startswith("optimizer.slow[") and given.splitlines()[0].endswith("missing after a resume")


def test_state_that_a_checkpoint_cannot_hold(tmp_path: Path) -> None:
    what, _, _ = fault(tmp_path, optimizer("Holds"))
    assert ".file is of type pathlib.PosixPath, which a checkpoint cannot hold" in what


def test_a_phase_of_one_step(tmp_path: Path) -> None:
    """Its schedule lasts for one step, and the rehearsal takes two."""
    change = ("phases.finetune.scheduler={_target_: torch.optim.lr_scheduler.OneCycleLR, max_lr: 0.1, "
              "total_steps: '${phase.steps}'}")
    facts = preflight(config(tmp_path, change, "phases.finetune.epochs=0.1"))
    assert (facts["steps"]["finetune"], facts["notes"]) == (1, [])


def test_an_optimizer_that_averages(tmp_path: Path) -> None:
    """As schedule-free ones do, which are switched between training and evaluation."""
    assert preflight(config(tmp_path, optimizer("ScheduleFree", module=OWN)))["notes"] == []


class Unused(Net):
    """One layer has no part in the outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(2, 2)


def test_parameters_without_a_gradient(tmp_path: Path) -> None:
    (note, *_) = preflight(config(tmp_path, model("Unused")))["notes"]
    assert note == ("2 parameters get no gradient in phase head, and the run would fail on several ranks: extra.bias, "
                    "extra.weight")
    what, where, given = fault(tmp_path, model("Unused"), world_size=2)
    assert what == "2 parameters get no gradient, which DistributedDataParallel refuses on 2 ranks"
    assert (where, given) == ("phases.head", "extra.bias\nextra.weight")


@pytest.mark.parametrize(("changes", "notes"), [
    (["phases.head.freeze=[extra]", "phases.finetune.freeze=[extra]"], []),
    (["find_unused_parameters=true"], [f"2 parameters get no gradient in phase {phase}: extra.bias, extra.weight"
                                       for phase in ("head", "finetune")]),
])
def test_they_are_frozen_or_may_be_unused(tmp_path: Path, changes: list[str], notes: list[str]) -> None:
    """Both as the error says."""
    found = preflight(config(tmp_path, model("Unused"), *changes), world_size=2)["notes"]
    assert [note for note in found if "gradient" in note] == notes


class Growing(Net):
    """A buffer that grows with each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", torch.zeros(0))

    def forward(self, pictures: Tensor) -> Tensor:
        if self.training:
            self.bank = torch.cat([self.bank, torch.zeros(1)])
        return super().forward(pictures)


class Expanded(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1).expand(3))


class Complex128(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(1, dtype=torch.complex128))


class ExtraState(Net):
    def get_extra_state(self) -> object:
        return iter([1])

    def set_extra_state(self, state: object) -> None: ...


class Lazy(Net):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.LazyLinear(2)


class Anneals(Net):
    """A Python counter decides what is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, pictures: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(pictures) * (1 + self.calls)


class Exact(Net):
    """Buffers of the types that a checkpoint has besides the usual ones."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("phase", torch.ones(3, dtype=torch.complex64))
        self.register_buffer("small", torch.ones(3).to(torch.float8_e4m3fn))


@pytest.mark.parametrize(("name", "message"), [
    ("Growing", "the saved state cannot be loaded: the checkpoint does not fit the architecture"),
    ("Expanded", "a checkpoint cannot hold scale of the model: it has items that share memory (torch's expand)"),
    ("Complex128", "a checkpoint cannot hold scale of the model: it is a tensor of torch.complex128"),
    ("ExtraState", "a checkpoint cannot hold _extra_state of the model: it is not a tensor but of type list_iterator"),
    ("Lazy", "the model has parameters whose shape its first batch decides")])
def test_models_that_a_checkpoint_cannot_hold(tmp_path: Path, name: str, message: str) -> None:
    assert message in fault(tmp_path, model(name))[0]


def test_types_that_a_checkpoint_can_hold(tmp_path: Path) -> None:
    assert preflight(config(tmp_path, model("Exact")))["notes"] == []


def test_a_counter_of_the_model_that_a_checkpoint_does_not_hold(tmp_path: Path) -> None:
    what, where, given = fault(tmp_path, model("Anneals"))
    assert what.startswith("the model computes something else after a resume, because a checkpoint does not hold all")
    assert (where, given.startswith("model.calls: ")) == ("model", True)


class OneHot(Pictures):
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        picture, label = super().__getitem__(index)
        return picture, nn.functional.one_hot(torch.tensor(label), 2).float()


class Own(Classification):
    """Takes a dict of outputs, and has a metric that cannot be computed."""

    metric_names = ("loss", "accuracy", "f2")

    def losses(self, outputs: Any, targets: Tensor) -> Tensor:
        return super().losses(outputs["logits"] if isinstance(outputs, dict) else outputs, targets)

    def metrics(self, results: Results) -> dict[str, float]:
        return super().metrics(results) | {"f2": 1 / 0}


class Headed(Net):
    def forward(self, pictures: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(pictures), "temperature": torch.ones(1)}


def test_what_an_evaluation_cannot_take(tmp_path: Path) -> None:
    sets = [f"data.{name}={{_target_: {HERE}.OneHot, n: 30}}" for name in ("train", "validation", "test")]
    what, where, given = fault(tmp_path, *sets)
    assert what == ("4 samples of data.validation cannot be evaluated: ValueError: the targets [4, 2] are not one "
                    "class number for each sample, int64 [4]")
    assert where == "task"
    task = f"task._target_={HERE}.Own"
    what, _, given = fault(tmp_path, task)
    assert what == "4 samples of data.validation cannot be evaluated: ZeroDivisionError: division by zero"
    assert f"{Path(__file__).name}:" in given
    assert "division by zero" in fault(tmp_path, task, model("Headed"))[0]  # its dict of logits was no obstacle


def test_a_set_that_reads_whole_batches(tmp_path: Path) -> None:
    """Texts are padded to one length when they are collated."""
    write_texts(tmp_path)
    (tmp_path / "texts.yaml").write_text(TEXTS.replace("ROOT", str(tmp_path)))
    assert preflight(load(tmp_path / "texts.yaml", []).config)["notes"] == []

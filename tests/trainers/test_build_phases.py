"""The phases of a run as the config describes them: schedules, what is trained, and which batches a rank gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.schema import Config
from drumbeat.data.memory import Arrays
from drumbeat.data.schedule import Schedule
from drumbeat.data.user_code import SampleError
from drumbeat.trainers.build import Sets, build_forward
from drumbeat.trainers.build_phases import average_due, build_batches, build_phases
from drumbeat.trainers.freezing import trainable
from drumbeat.trainers.loop import TrainingPhase
from drumbeat.trainers.position import build_schedules
from drumbeat.trainers.tasks import Classification
from drumbeat.trainers.world import World

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
SETS = Sets(train=Arrays(torch.arange(10.0)[:, None], torch.arange(10)), validation=None, test=None,
            train_transforms=[], evaluate_transforms=[])


def config(**changes: Any) -> Config:
    """Two phases, of which the second has its own batch size."""
    optimizer = {"_target_": "torch.optim.SGD", "lr": 0.5}
    phases = {"head": {"epochs": 1, "freeze": ["0"], "optimizer": optimizer},
              "all": {"epochs": 1.5, "batch_size": 5, "start_from": "best", "clip_norm": 2.0,
                      "optimizer": {**optimizer, "lr": 0.25}, "scheduler_every": "epoch",
                      "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 1}}}
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": 4, "model": {"_target_": "x"}, "precision": "fp32", "phases": phases, **changes})])


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 10))


def phases_of(found: Config, network: nn.Module) -> list[TrainingPhase]:
    return build_phases(found, SETS, model=network, parameters=trainable(network), task=Classification(), world=ALONE,
                        forward=build_forward(found, ALONE.device), workers=0)


def test_a_phase_has_its_own_batch_size_or_the_configs() -> None:
    schedules = build_schedules(config(), 10)
    assert schedules == [Schedule(10, 4, 1), Schedule(10, 5, 1.5)]
    assert [schedule.steps for schedule in schedules] == [3, 3]


def test_phases_follow_the_order_of_the_config() -> None:
    assert [(phase.schedule.batch_size, phase.start_from) for phase in phases_of(config(), model())] == [
        (4, "last"), (5, "best")]


def test_a_runner_has_the_settings_of_its_phase() -> None:
    network = model()
    found = config(micro_batch_size=2, seed=7, on_nonfinite="ignore")
    head, whole = (phase.make_runner() for phase in phases_of(found, network))
    assert (head.name, head.batch_size, head.clip_norm, head.scheduler) == ("head", 4, None, None)
    assert (whole.name, whole.batch_size, whole.clip_norm, whole.scheduler_every) == ("all", 5, 2.0, "epoch")
    assert isinstance(whole.scheduler, torch.optim.lr_scheduler.StepLR)
    assert [one.optimizer.param_groups[0]["lr"] for one in (head, whole)] == [0.5, 0.25]
    assert {(one.seed, one.micro_batches.size, one.checks_finite, one.loss.mixes)
            for one in (head.gradients, whole.gradients)} == {(7, 2, False, False)}
    assert [len(one.trained) for one in (head, whole)] == [2, 4]


def test_an_average_is_updated_every_so_many_steps_or_at_the_ends_of_epochs() -> None:
    schedule = Schedule(10, 4, 2.5)  # 25 samples: 7 steps, and epochs end after 3 and 5
    assert [[step for step in range(1, 8) if average_due(schedule, every, step)] for every in (1, 3, None)] == [
        [1, 2, 3, 4, 5, 6, 7], [3, 6], [3, 5, 7]]


def test_a_frozen_layer_of_one_phase_is_trained_in_the_next() -> None:
    """A runner is built when its phase starts."""
    network, required = model(), []
    for phase in phases_of(config(), network):
        phase.make_runner()
        required.append([parameter.requires_grad for parameter in network.parameters()])
    assert required == [[False, False, True, True], [True] * 4]


class PartlyFrozen(nn.Sequential):
    """A model with parameters that it does not train: a constant, pretrained vectors, and counts."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(1, 4), nn.Linear(4, 10))
        self.scale = nn.Parameter(torch.tensor(2.0), requires_grad=False)
        self.vectors = nn.Embedding.from_pretrained(torch.ones(10, 4), freeze=True)
        self.counts = nn.Parameter(torch.zeros(3, dtype=torch.int64), requires_grad=False)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        hidden = self[0](inputs) * self.scale + self.vectors(torch.arange(len(inputs)))
        return self[1](hidden)


def test_parameters_that_the_model_has_frozen_itself_are_not_trained() -> None:
    """In no phase, whether the phase freezes modules or not."""
    network = PartlyFrozen()
    frozen = {name: value.detach().clone() for name, value in network.named_parameters() if not value.requires_grad}
    before = {name: value.detach().clone() for name, value in network.named_parameters() if value.requires_grad}
    assert sorted(frozen) == ["counts", "scale", "vectors.weight"]
    moved = []
    for number, phase in enumerate(phases_of(config(), network)):
        runner = phase.make_runner()
        moved.append([network_name for network_name, value in network.named_parameters() if value.requires_grad])
        for batch in phase.make_batches(phase.schedule.steps - 1):
            runner.start([batch], None)
            runner.backward([batch], 0)
            runner.settle(runner.update())
        assert all(torch.equal(dict(network.named_parameters())[name], value) for name, value in frozen.items()), number
    assert moved == [["1.weight", "1.bias"], ["0.weight", "0.bias", "1.weight", "1.bias"]]
    assert all(not torch.equal(dict(network.named_parameters())[name], value) for name, value in before.items())


def test_a_layer_that_the_model_does_not_have_cannot_be_frozen() -> None:
    found = config()
    network = nn.Sequential()
    with pytest.raises(PreflightError, match="the model has no module '0'"):
        phases_of(found, network)[0].make_runner()


def indices(found: Config, number: int, first: int, world: World = ALONE) -> list[list[int]]:
    """The samples of a phase's batches."""
    schedule = build_schedules(found, 10)[number]
    return [batch.indices.tolist() for batch in build_batches(found, SETS, number, schedule, first, world=world,
                                                              workers=0)]


def test_batches_in_the_order_of_the_set_start_again_at_its_end() -> None:
    plain = config(data={"shuffle": False})
    assert indices(plain, 0, 0) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 0, 1]]
    assert indices(plain, 0, 2) == [[8, 9, 0, 1]]
    assert indices(plain, 1, 3) == []


def test_ranks_share_each_batch() -> None:
    first, second = (indices(config(), 1, 0, replace(ALONE, rank=rank, size=2)) for rank in range(2))
    assert [len(part) for part in (*first, *second)] == [2, 2, 2, 3, 3, 3]
    assert [one + other for one, other in zip(first, second, strict=True)] == indices(config(), 1, 0)


def test_a_resumed_phase_reads_what_it_would_have_read() -> None:
    """Shuffled, in another order in each phase, and with each sample once in an epoch."""
    assert indices(config(), 0, 1) == indices(config(), 0, 0)[1:]
    first, second = ([index for batch in indices(config(), number, 0) for index in batch][:10] for number in range(2))
    assert sorted(first) == sorted(second) == [*range(10)]
    assert first != second


class Damaged(Arrays):
    """A set of which the first sample cannot be read."""

    fetch = None  # type: ignore[assignment]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 0:
            raise OSError("it is damaged")
        return super().__getitem__(index)


def test_samples_that_cannot_be_read_are_replaced_only_if_the_config_says_so() -> None:
    sets = replace(SETS, train=Damaged(torch.zeros(10, 1), torch.arange(10)))
    schedule = Schedule(10, 4, 1)
    skip = config(data={"shuffle": False, "on_error": "skip"})
    first, *_ = build_batches(skip, sets, 0, schedule, 0, world=ALONE, workers=0)
    assert (first.replaced.tolist(), first.targets.tolist()) == ([True, False, False, False], [1, 1, 2, 3])
    stop = config(data={"shuffle": False})
    with pytest.raises(SampleError, match=r"^sample 0 of data\.train: OSError: it is damaged \(tests/trainers/"):
        [*build_batches(stop, sets, 0, schedule, 0, world=ALONE, workers=0)]

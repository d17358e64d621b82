"""A training step on a fake GPU: all tensors are on the right device, and the host waits only for the check of the
previous step, after it has queued the next one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from drumbeat.configs.load import load
from drumbeat.configs.schema import Config
from drumbeat.data.device import on_device
from drumbeat.data.loader import Batch
from drumbeat.data.text import Padded
from drumbeat.trainers.build import build_forward, build_task, place_model
from drumbeat.trainers.build_optimizer import build_optimizer
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.world import World
from tests.trainers.fake_gpu import GPU, FakeGpu, gpu

__all__ = ["gpu"]


def batch(inputs: Any, targets: Any) -> Batch:
    n = len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)
    return Batch(inputs, targets, torch.arange(n), torch.arange(n), torch.zeros(n, dtype=torch.bool))


IMAGES = batch(torch.zeros(128, 1, 256, 256, dtype=torch.uint8), torch.zeros(128, dtype=torch.int64))
TEXTS = batch(Padded(torch.ones(128, 12, dtype=torch.int64), 1 + torch.arange(128) % 12), torch.zeros(128, 4))
MIXED = batch(torch.zeros(64, 3, 32, 32, dtype=torch.uint8), {
    "own": torch.zeros(64, dtype=torch.int64), "partner": torch.ones(64, dtype=torch.int64), "kept": torch.rand(64)})

CASES: dict[str, tuple[str, Sequence[str], int, Batch]] = {
    "the flagship's head": ("resnet50_xray", ["initialize.weights=null"], 0, IMAGES),
    "the whole flagship": ("resnet50_xray", ["initialize.weights=null"], 1, IMAGES),
    "texts": ("bilstm_news", ["model.vocab_size=100", "model.classes=4", "model.padding_idx=0"], 0, TEXTS),
    "mixed and weighted": ("cnn_cifar10", [
        "model.classes=10",
        "data.mix={_target_: drumbeat.data.Mixup}", "phases.train.clip_norm=1.0", "micro_batch_size=24",
        "phases.train.optimizer={_target_: torch.optim.SGD, lr: 0.1, momentum: 0.9}",
        "task={_target_: drumbeat.trainers.tasks.Classification, loss: {_target_: torch.nn.CrossEntropyLoss, "
        "weight: {_target_: torch.ones, size: [10]}}}"], 0, MIXED),
}


def runner(gpu: FakeGpu, config: Config, number: int) -> PhaseRunner:
    world = World(rank=0, local_rank=0, size=1, device=GPU)
    model = gpu.place(place_model(config, torch.device("cpu")))
    with gpu.watched():
        built = build_phase_runner(config, number, model, build_task(config, None, GPU), world,
                                   build_forward(config, world.device))
    gpu.waits.clear()  # of the transforms' own tensors and of the class weights, which are copied once
    return built


@pytest.mark.parametrize("case", CASES)
def test_a_step_waits_only_for_the_check_of_the_previous_one(gpu: FakeGpu, case: str) -> None:
    name, changes, number, samples = CASES[case]
    phase = runner(gpu, load(name, changes).config, number)
    with gpu.watched():
        phase.start([gpu.pin(samples)], None)
        gpu.acts.clear()
        phase.backward([samples], 0)
        check = phase.update()
        phase.backward([samples], 1)
        assert phase.settle(check)
        phase.update()
    assert not gpu.waits, "\n".join(gpu.waits)
    passes = ["pass"] * len(phase.gradients.micro_batches.parts(len(samples.positions)))
    assert gpu.acts == [*passes, "update", *passes, "wait", "update"]


def test_the_host_waits_if_the_optimizer_cannot_skip_a_step(gpu: FakeGpu) -> None:
    name, changes, number, samples = CASES["mixed and weighted"]
    phase = runner(gpu, load(name, [*changes, "phases.train.optimizer={_target_: torch.optim.RMSprop}"]).config, number)
    with gpu.watched():
        phase.backward([gpu.pin(samples)], 0)
        phase.update()
    assert gpu.acts == ["pass", "pass", "pass", "wait"]


@pytest.mark.parametrize(("optimizer", "fused"), [
    ("{_target_: torch.optim.AdamW}", True),
    ("{_target_: torch.optim.SGD, lr: 0.1}", True),
    ("{_target_: torch.optim.AdamW, fused: false}", False),
    ("{_target_: torch.optim.AdamW, foreach: true}", None),
    ("{_target_: torch.optim.Adagrad}", None),
])
def test_optimizers_are_fused_on_a_gpu(gpu: FakeGpu, optimizer: str, fused: bool | None) -> None:
    """If torch has a fused implementation and the config sets neither `fused` nor `foreach`."""
    config = load("mlp_fashion_mnist", [f"phases.train.optimizer={optimizer}"]).config
    phase = config.phases["train"]
    assert phase is not None
    with gpu.watched():
        model = nn.Linear(3, 1, device=GPU)
        assert build_optimizer(phase, "train", model, [model.weight]).param_groups[0]["fused"] is fused
    model = nn.Linear(3, 1)
    on_cpu = build_optimizer(phase, "train", model, [model.weight]).param_groups[0]["fused"]
    assert on_cpu is (None if fused else fused)


def test_a_batch_is_copied_while_the_previous_one_is_used(gpu: FakeGpu) -> None:
    """Except what the host reads: positions, and the lengths of texts."""
    used: list[str] = []

    def source() -> Iterator[Batch]:
        for number in range(3):
            used.append(f"read {number}")
            yield gpu.pin(TEXTS)

    with gpu.watched():
        for number, one in enumerate(on_device(source(), GPU)):
            used.append(f"use {number}")
            assert (one.inputs.ids.device, one.targets.device) == (GPU, GPU)
            assert {value.device.type for value in (*one[2:], one.inputs.lengths)} == {"cpu"}
    assert used == ["read 0", "read 1", "use 0", "read 2", "use 1", "use 2"]
    assert not gpu.waits, "\n".join(gpu.waits)
    assert list(on_device([TEXTS], torch.device("cpu"))) == [TEXTS]


HOST = torch.ones(3)

WAITS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "a value": (lambda one: one.sum().item(), "aten::_local_scalar_dense"),
    "a boolean": (lambda one: bool(one[0] > 0), "aten::_local_scalar_dense"),
    "a copy from the GPU": (lambda one: one.cpu(), "cuda to cpu"),
    "a blocking copy to the GPU": (lambda one: HOST.pin_memory().to(GPU), "cpu to cuda"),
    "memory that is not pinned": (lambda one: torch.ones(3).to(GPU, non_blocking=True), "cpu to cuda, not pinned,"),
    "an index on the host": (lambda one: one[torch.tensor([0, 1])], "aten::index by a tensor on the host"),
}


@pytest.mark.parametrize("what", WAITS)
def test_a_wait_is_recorded_with_its_line(gpu: FakeGpu, what: str) -> None:
    act, wait = WAITS[what]
    with gpu.watched():
        act(torch.ones(3, device=GPU))
    assert gpu.waits == [f"{wait} at tests/trainers/test_gpu_step.py:{act.__code__.co_firstlineno}"]


def test_mixed_devices_and_sizes_that_depend_on_values_raise(gpu: FakeGpu) -> None:
    with gpu.watched():
        one = torch.ones(3, device=GPU)
        with pytest.raises(RuntimeError, match="same device"):
            one + torch.ones(3)
        with pytest.raises(DynamicOutputShapeException):
            one.nonzero()
    assert [wait.partition(" ")[0] for wait in gpu.waits] == ["aten::nonzero"]

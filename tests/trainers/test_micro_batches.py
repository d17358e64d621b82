"""A step that does not fit into a rank's memory is repeated by all ranks, with the bits of smaller micro-batches."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Result
from drumbeat.configs.run.view import View
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch
from drumbeat.data.order import shard
from drumbeat.launch.attempts.meanings import CONSEQUENCES, explain
from drumbeat.launch.runs.status import status_text
from drumbeat.trainers.build import build_forward
from drumbeat.trainers.build_phases import build_phase_runner
from drumbeat.trainers.checkpoints.extra_state import as_tensors
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.micro_batches import is_out_of_memory, largest
from drumbeat.trainers.tasks import Regression, log
from drumbeat.trainers.tasks.logged import Logged, logging
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.tiny import Net, drumbeat, latest, write_config

HERE = "tests.trainers.test_micro_batches"
ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
SIZE = 12
LENGTHS = [4, 4, 8, 4, 8]
"""Of the texts of each step."""
CAPACITY = 24
"""How many numbers fit into the memory of the last rank."""
FOUND = {1: [6, 6, 3, 3, 3], 2: [6, 6, 3, 3, 3], 3: [4, 4, 2, 2, 2]}
"""By the number of ranks: what a rank then computes at once, in each step."""


def no_memory(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Texts(nn.Module):
    """Texts [n, length, 4] -> [n, 2]. The last rank has memory for `CAPACITY` numbers, and finds out in its forward
    pass, or in the backward pass for long texts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([nn.Linear(4, 2), *(nn.Linear(4, 4) for _ in range(5))])  # from output to input
        self.norm = nn.BatchNorm1d(4)
        self.dropout = nn.Dropout(0.3)
        self.words = nn.Embedding(8, 4, sparse=True)
        self.calls = 0
        self.tight = True
        self.told: list[int] = []

    def forward(self, texts: Tensor) -> Tensor:
        self.calls += 1
        n, length, _ = texts.shape
        if n == 0:
            raise ValueError("no samples")
        hidden = texts.mean(1) + self.words(torch.arange(n) % 8) * self.calls
        for layer in reversed(self.layers[1:]):
            hidden = self.dropout(self.norm(layer(hidden)).relu())
        log("rows", torch.ones(n))
        if self.tight and n * length > CAPACITY:
            if length == 4:
                no_memory()
            hidden.register_hook(no_memory)
        return self.layers[0](hidden)  # type: ignore[no-any-return]

    def get_extra_state(self) -> int:
        return self.calls

    def set_extra_state(self, state: int) -> None:
        self.calls = state


def config(micro_batch_size: Any) -> Config:
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": SIZE, "micro_batch_size": micro_batch_size, "model": {"_target_": "x"},
        "precision": "fp32", "phases": {"only": {"epochs": 1, "optimizer": {
            "_target_": "torch.optim.SGD", "lr": 0.1}}}})])


def trained(world: World, sizes: list[int] | None) -> tuple[str, list[int | None], list[float]]:
    """After five steps: a digest of the weights, the sizes of the micro-batches, and how many samples each step has
    logged. With `sizes`, those are configured; otherwise they are found."""
    made = config("auto" if sizes is None else sizes[0])
    model = as_tensors(Texts())
    model.tight = sizes is None and world.rank == world.size - 1
    one = build_phase_runner(made, 0, model, Regression(), world, build_forward(made, world.device))
    found, rows = [], []
    mine = shard(SIZE, world.rank, world.size)
    indices = torch.arange(mine.start, mine.stop)
    for step, length in enumerate(LENGTHS):
        texts = torch.randn(SIZE, length, 4, generator=torch.Generator().manual_seed(step))[mine.start:mine.stop]
        batch = Batch(texts, texts.sum(1)[:, :2], indices, indices, indices < 0)
        if step == 0:
            one.start([batch], None)
        if sizes is not None:
            one.gradients.micro_batches.size = sizes[step]
        with logging(logged := Logged()):
            loss = one.backward([batch], step)
        assert one.settle(one.update())
        found.append(one.gradients.micro_batches.size)
        rows += [float(logged.parts[world.rank]["rows"][1]), float(loss)]
    return weights_sha256(one.model.state_dict()), found, rows


def assert_same(world: World) -> None:
    digest, found, rows = trained(world, None)
    share = SIZE // world.size
    assert [size or share for size in found] == FOUND[world.size]
    assert (digest, rows) == trained(world, FOUND[world.size])[::2]
    assert rows[::2] == [share] * len(LENGTHS)


def test_smaller_micro_batches_are_found_and_give_the_bits_of_configured_ones() -> None:
    assert_same(ALONE)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_all_ranks_divide_if_one_has_too_little_memory(ranks: int) -> None:
    """With three ranks, the order of summation depends on DistributedDataParallel's buckets."""
    on_ranks(ranks, assert_same)


def refused(world: World) -> None:
    """Not even one sample fits into the memory of the last rank; all ranks end."""
    one = build_phase_runner(config("auto"), 0, as_tensors(Texts()), Regression(), world,
                             build_forward(config("auto"), world.device))
    length = CAPACITY + 1 if world.rank == world.size - 1 else 1
    n = SIZE // world.size
    texts, indices = torch.zeros(n, length, 4), torch.arange(n)
    one.model.norm = nn.Identity()  # BatchNorm needs two samples
    with pytest.raises(RuntimeError) as error:
        one.backward([Batch(texts, texts.sum(1)[:, :2], indices, indices, indices < 0)], 0)
    kind, message = type(error.value).__name__, str(error.value)
    if world.rank == world.size - 1:
        assert kind == "OutOfMemoryError"
        assert explain(kind, message)[2].startswith("train with less for each sample: recompute")
        assert not CONSEQUENCES.match(f"{kind}: {message}")
    else:
        assert (kind, message) == ("RuntimeError", "rank 1 is out of memory with one sample at a time")
        assert CONSEQUENCES.match(f"{kind}: {message}")
    assert one.gradients.micro_batches.size == 1


def test_one_sample_that_does_not_fit_ends_the_run() -> None:
    refused(ALONE)


@pytest.mark.slow
def test_one_sample_that_does_not_fit_on_one_rank_ends_all() -> None:
    on_ranks(2, refused)


class TightNet(Net):
    """The last of two ranks has memory for three images."""

    def forward(self, pictures: Tensor) -> Tensor:
        if self.training and len(pictures) > 3 and self.rank == 1:
            no_memory()
        return super().forward(pictures)

    @property
    def rank(self) -> int:
        return int(os.environ.get("RANK", "0"))


@pytest.mark.slow
def test_a_run_remembers_what_fits(tmp_path: Path, undisturbed: RunDir) -> None:
    """At most three of six samples, as in the small experiment, for which four are configured. The attempt after a
    kill begins with that."""
    drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "micro_batch_size=auto",
             f"model._target_={HERE}.TightNet", "task._target_=tests.tiny.Fuse", f"task.folder={tmp_path}",
             "task.at=[40]", "task.rank=1")
    run = latest(tmp_path)
    first, second = (run.attempt(number).log(0).read_text() for number in (0, 1))
    lines = ("memory     rank 1 is out of memory with 6 samples at a time: from here on, each\n"
             "           rank computes at most 3 at a time\n")
    assert first.count(lines) == first.count("memory     ") == 1
    assert "memory     " not in second
    assert Result.require(run.result) == Result.require(undisturbed.result)
    assert "micro-batch     at most 3 samples at a time, which fit into memory" in status_text(View.read(run))


@pytest.mark.parametrize(("error", "expected"), [
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
    (RuntimeError("CUDA error: out of memory"), True), (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"), True),
    (MemoryError(), True), (RuntimeError("Expected more than 1 value per channel"), False),
    (ValueError("out of memory"), False),
])
def test_errors_about_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) == expected


def test_what_the_host_raises_is_about_memory() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(error.value)


def test_what_is_computed_at_once_if_all_fits() -> None:
    assert [largest(configured, 6) for configured in (None, "auto", 4, 8)] == [6, 6, 4, 6]

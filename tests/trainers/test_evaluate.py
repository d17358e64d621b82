"""Evaluation: each sample once and the same numbers, however many ranks share it; losses, accuracy, mistakes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from configs.layers import Layer
from configs.load import build_config
from tests.tiny import Net, Pictures
from trainers.evaluate import evaluate
from trainers.stage import Forward
from trainers.tasks import Classification, Mistake, Results, mean
from trainers.world import join

CONFIG = {"name": "x", "batch_size": 4, "model": {"_target_": "x"}, "precision": "fp32",
          "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "x"}}}}


def judged(n: int, out: Path | None = None) -> Results:
    """A set of n pictures, evaluated by whoever runs this; rank 0 leaves the results at `out`."""
    torch.set_num_threads(1)
    with join("cpu") as world:
        config = build_config([Layer(values=CONFIG, origin="test")])
        torch.manual_seed(0)
        forward = Forward(config, world, torch.nn.Sequential(_Scale()))
        results = evaluate(Net(), Classification(), Pictures(n=n), [], forward=forward, world=world, batch_size=4,
                           workers=0)
        if out is not None and world.is_first:
            torch.save(tuple(results), out)
    return results


class _Scale(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float() / 255


def _rank(rank: int, size: int, port: int, n: int, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": str(port)}
    judged(n, out)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "ranks"), [(30, 2), (30, 3), (5, 7)])
def test_the_same_results_on_any_number_of_ranks(tmp_path: Path, n: int, ranks: int) -> None:
    """Also where there are fewer chunks than ranks."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(_rank, (ranks, port, n, tmp_path / "results"), nprocs=ranks)
    shared = torch.load(tmp_path / "results")
    for ours, alone in zip(shared, judged(n), strict=True):
        assert torch.equal(ours, alone)


def test_every_sample_is_there_in_the_order_of_the_set() -> None:
    results = judged(11)
    assert results.targets.tolist() == [Pictures(n=11)[index][1] for index in range(11)]
    assert results.outputs.shape == (11, 2)


def test_metrics_and_mistakes() -> None:
    outputs = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, 0.5]])
    targets = torch.tensor([0, 1, 1, 0])
    task = Classification(classes=["cat", "dog"])
    results = Results(task.losses(outputs, targets), outputs, targets)
    assert task.metrics(results)["accuracy"] == 0.5
    assert task.metrics(results)["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(outputs, targets).item(), abs=1e-7)
    assert task.mistakes(results, 5) == [Mistake(2, "cat / dog"), Mistake(3, "dog / cat")]
    assert task.mistakes(results, 1) == [Mistake(2, "cat / dog")]


def test_log_softmax_and_nll_is_cross_entropy() -> None:
    outputs, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 2, 1, 0])
    nll = Classification(loss=torch.nn.NLLLoss()).losses(outputs.log_softmax(1), targets)
    torch.testing.assert_close(nll, Classification().losses(outputs, targets))


def test_the_mean_does_not_depend_on_the_order() -> None:
    losses = torch.rand(10_000) * torch.logspace(-6, 6, 10_000)
    assert mean(losses) == mean(losses.flip(0))

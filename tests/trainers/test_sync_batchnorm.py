"""SyncBatchNorm takes the place of BatchNorm: same names and tensors, same evaluation, selected by the same types."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.run.records import Result
from drumbeat.trainers.patterns import select
from drumbeat.trainers.sync_batchnorm import check_synchronizable, converted, synchronized
from drumbeat.trainers.world import World
from tests.tiny import Net, drumbeat, latest, write_config


class WithReLU(nn.BatchNorm2d):
    """As timm's BatchNormAct2d."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs).relu()


def test_a_converted_model_is_saved_and_evaluated_as_the_plain_one() -> None:
    model = Net()
    model.again = model.backbone[1]  # the same module, by another name
    images = torch.rand(4, 1, 8, 8)
    expected, names = model.eval()(images), [*model.state_dict()]
    parameters = [*model.parameters()]
    assert converted(model) is model
    assert type(model.backbone[1]) is type(model.head[1]) is nn.SyncBatchNorm and model.again is model.backbone[1]
    assert [*model.state_dict()] == names and not model.backbone[1].training
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(model(images), expected)
    assert type(converted(nn.BatchNorm2d(2))) is nn.SyncBatchNorm


def test_types_select_what_they_selected_before() -> None:
    plain, model = Net(), converted(Net())
    for kind in ("BatchNorm1d", "BatchNorm2d", "SyncBatchNorm"):
        chosen = [{"type": f"torch.nn.{kind}"}]
        found = [name for name, module in model.named_modules() if module in select(model, chosen, "freeze").modules]
        if kind != "SyncBatchNorm":
            assert found == [name for name, module in plain.named_modules()
                             if module in select(plain, chosen, "freeze").modules]
        assert len(found) == {"BatchNorm1d": 2, "BatchNorm2d": 1, "SyncBatchNorm": 3}[kind]


def test_what_would_be_lost_is_refused() -> None:
    with pytest.raises(PreflightError, match="WithReLU"):
        check_synchronizable(nn.Sequential(WithReLU(2)), "cuda", 2)
    check_synchronizable(nn.Sequential(WithReLU(2)), "cuda", 1)
    check_synchronizable(Net(), "cuda", 2)
    with pytest.raises(PreflightError, match="SyncBatchNorm"):
        synchronized(Net(), World(rank=0, local_rank=0, size=2, device=torch.device("cpu")))


@pytest.mark.slow
def test_on_one_rank_it_changes_nothing(tmp_path: Path) -> None:
    digests = []
    for name, value in (("plain", "false"), ("sync", "true")):
        (folder := tmp_path / name).mkdir()
        drumbeat(folder, str(write_config(folder)), "--debug", f"sync_batchnorm={value}", "limit_batches=2")
        digests.append(Result.require(latest(folder).result).weights_sha256)
    assert digests[0] == digests[1]

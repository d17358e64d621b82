"""A loss that is no number, and ranks that have drifted apart, end a run with the state before it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from configs.rundir import read_json
from data.order import Stream
from tests.tiny import drumbeat, latest, write_config
from trainers.guards import Buffers, weights_digest

POISON = 41
POISONED = [f"data.train={{_target_: tests.tiny.Poisoned, n: 100, poison: {POISON}}}", "data.transforms.train=[]",
            "max_batch_per_device=null"]
AT = int(np.flatnonzero(Stream(100, 0, 0).indices(np.arange(100)) == POISON)[0])
"""The position at which the first epoch reads it."""
STEP = AT // 12


def test_a_digest_of_the_weights_tells_a_single_bit() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Linear(3, 2, dtype=torch.bfloat16))
    before = weights_digest(model)
    assert torch.equal(weights_digest(model.to(memory_format=torch.channels_last)), before)  # type: ignore[call-overload]
    with torch.no_grad():
        model[2].bias[0] = torch.nextafter(model[2].bias[0].float(), torch.tensor(9.0)).bfloat16() + 0.01
    assert not torch.equal(weights_digest(model), before)


def test_buffers_come_back() -> None:
    model = nn.BatchNorm1d(2)
    buffers = Buffers(model)
    model(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    buffers.keep()
    kept = [value.clone() for value in model.buffers()]
    model(torch.full((2, 2), float("nan")))
    assert torch.isnan(model.running_mean).any()  # type: ignore[arg-type]
    buffers.restore()
    assert all(torch.equal(now, then) for now, then in zip(model.buffers(), kept, strict=True))


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_and_names_the_samples(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), *POISONED, "--procs", "2", expect=1)
    run = latest(tmp_path)
    rank = int(AT % 12 >= 6)
    verdict = read_json(run.status)["verdict"]
    assert f"the loss is nan at step {STEP} of rank {rank}; positions " in verdict
    assert f"{AT} (sample {POISON})" in verdict
    assert verdict.endswith(f"; the last checkpoint is of step {STEP}; not tried again: it would fail the same way")
    assert len(list(run.attempts.iterdir())) == 1
    assert read_json(run.checkpoints / "last" / "state.json")["progress"]["phase_step"] == STEP
    again = drumbeat(tmp_path, "--resume", "tiny", "--debug", expect=None)  # steps into it
    assert f"the loss is nan at step {STEP} of rank 0" in again.stdout + again.stderr


@pytest.mark.slow
def test_such_a_step_can_be_skipped(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), *POISONED, "--debug", "not_finite=skip")
    result = read_json(latest(tmp_path).result)
    assert result["steps"] == 42
    assert result["best"]["accuracy"] > 0.7


@pytest.mark.slow
def test_ranks_that_have_drifted_apart_end_the_attempt(tmp_path: Path) -> None:
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "model._target_=tests.tiny.Drifts",
                    "max_batch_per_device=null", "compare_ranks_every=6", "launch.restarts=0", expect=1)
    assert "DivergedError: no two ranks' weights are the same after step 12" in " ".join(done.stdout.split())

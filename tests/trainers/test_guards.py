"""A NaN or Inf loss, and ranks whose weights differ, end a run with the state before that step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from drumbeat.configs.run.checkpoint_records import CheckpointState
from drumbeat.configs.run.records import Result, Status
from drumbeat.data.loader import Batch
from drumbeat.data.order import Stream
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.guards import Buffers, Scan, all_finite, first_gradient, not_finite, total_norm, weights_digest
from drumbeat.trainers.world import World
from tests.tiny import drumbeat, latest, write_config

POISON = 41
POISONED = [f"data.train={{_target_: tests.tiny.Poisoned, n: 100, poison: {POISON}}}", "data.transforms.train=[]",
            "micro_batch_size=null"]
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


class Hoard(nn.Module):
    """Buffers of all kinds, each changed by a forward pass: of several types, without items, a part of another one, one
    that lies there twice, and one that is replaced."""

    def __init__(self) -> None:
        super().__init__()
        for name, value in {
            "single": torch.tensor(1.5), "short": torch.arange(4, dtype=torch.bfloat16), "flags": torch.tensor([True]),
            "whole": torch.arange(6).reshape(2, 3).T, "waves": torch.ones(2, dtype=torch.complex128),
            "empty": torch.empty(0, 3), "replaced": torch.zeros(3)}.items():
            self.register_buffer(name, value)
        self.register_buffer("part", self.whole[1:, 0])  # type: ignore[index]
        self.register_buffer("again", self.single)
        self.register_buffer("spread", self.single.expand(5))  # type: ignore[operator]
        self.register_buffer("absent", None)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            self.single.add_(inputs.sum())  # type: ignore[operator]
            self.short.mul_(inputs.sum())  # type: ignore[operator]
            self.flags.logical_not_()  # type: ignore[operator]
            self.whole.add_(7)  # type: ignore[operator]
            self.waves.mul_(1j)  # type: ignore[operator]
            self.replaced = self.replaced + inputs.sum()
        return inputs


@pytest.mark.parametrize("condition", [None, True, False])
@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_buffers_of_all_kinds_come_back(value: float, condition: bool | None) -> None:
    """Or stay, to the bit, where that is not wanted; step after step."""
    model = Hoard()
    buffers = Buffers(model)
    for _ in range(3):
        before = weights_sha256(dict(model.named_buffers()))
        buffers.keep()
        model(torch.full((3,), value))
        after = weights_sha256(dict(model.named_buffers()))
        buffers.restore(None if condition is None else torch.tensor(condition))
        assert weights_sha256(dict(model.named_buffers())) == (after if condition is False else before) != (
            before if condition is False else after)
    assert torch.equal(model.part, model.whole[1:, 0])  # type: ignore[arg-type,index]


def test_buffers_are_as_after_the_last_step_for_a_while() -> None:
    """Also those that the next forward pass has replaced; once that step is taken, its own count."""
    model = Hoard()
    buffers = Buffers(model)

    def digest() -> str:
        return weights_sha256(dict(model.named_buffers()))

    before = digest()
    buffers.keep()
    model(torch.ones(3))
    after, replaced = digest(), model.replaced
    with buffers.as_trained():
        assert digest() == before != after
    assert digest() == after and model.replaced is replaced
    buffers.ahead = False
    with buffers.as_trained():
        assert digest() == after


def test_buffers_take_one_operation_for_each_type() -> None:
    """However many there are: 64 of BatchNorm's floats, 32 of its counts. Those of frozen modules take none."""
    model = nn.Sequential(*(nn.BatchNorm1d(2) for _ in range(48)))
    buffers = Buffers(model, [*model[:16]])
    buffers.keep()
    with Counted() as counted:
        buffers.keep()
        buffers.restore()
    assert counted.calls == {"aten::_foreach_copy_": 4}
    assert [len(group) for group, _ in buffers.groups] == [64, 32]


class Counted(TorchDispatchMode):
    """Counts operations."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[func.name().partition(".")[0]] += 1
        return func(*args, **kwargs or {})


def test_a_nan_gradient_is_not_blamed_on_ranks_that_do_not_exist() -> None:
    """A finite loss can have a gradient that is not finite: the square root at 0."""
    batch = Batch(None, None, torch.tensor([7]), torch.tensor([3]), torch.zeros(1, dtype=torch.bool))
    one, two = (World(rank=0, local_rank=0, size=size, device=torch.device("cpu")) for size in (1, 2))
    assert str(not_finite(5, torch.tensor(0.25), [batch], one)) == (
        "NaN or Inf gradient at step 5 on rank 0: the loss is 0.25; positions 7 (sample 3)")
    assert str(not_finite(5, torch.tensor(0.25), [batch], two)) == (
        "NaN or Inf gradient at step 5; the loss of rank 0 is finite")


@pytest.mark.parametrize(("losses", "said"), [
    ([1.0, float("nan"), 2.0], "positions 8 (sample 4, b.png); the other losses are finite"),
    ([float("inf"), 1.0, float("nan")],
     "positions 7 (sample 3, a.png), 9 (sample 0, x.png); the other losses are finite"),
    ([float("nan")] * 3, "positions 7 (sample 3, a.png), 8 (sample 4, b.png), 9 (sample 0, x.png)"),
    ([1.0] * 3, "positions 7 (sample 3, a.png), 8 (sample 4, b.png), 9 (sample 0, x.png)")])
def test_the_samples_whose_loss_is_not_finite_are_named_alone(losses: list[float], said: str) -> None:
    """In micro-batches of two; all of them if none is known to be the cause."""
    batch = Batch(None, None, torch.tensor([7, 8, 9]), torch.tensor([3, 4, 0]), torch.zeros(3, dtype=torch.bool))
    one, names = World(rank=0, local_rank=0, size=1, device=torch.device("cpu")), ["x.png", "", "", "a.png", "b.png"]
    found = str(not_finite(5, torch.tensor(losses).sum(), [batch], one, torch.tensor(losses).split(2), names))
    assert found.partition("; ")[2] == said


def test_whether_all_weights_are_finite() -> None:
    model = nn.Linear(2, 3)
    assert all_finite(model)
    with torch.no_grad():
        model.bias[1] = float("inf")
    assert not all_finite(model)


@pytest.mark.slow
def test_a_nan_loss_ends_the_run_and_names_the_samples(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), *POISONED, "--procs", "2", expect=1)
    run = latest(tmp_path)
    rank = int(AT % 12 >= 6)
    verdict = Status.require(run.status).verdict
    assert f"NaN or Inf loss at step {STEP} on rank {rank}: the loss is nan; positions " in verdict
    assert f"{AT} (sample {POISON})" in verdict
    assert verdict.endswith(f"; the last checkpoint is at step {STEP}; not retried: it would fail the same way")
    assert len(list(run.attempts.iterdir())) == 1
    assert CheckpointState.require(run.checkpoints / "last" / "state.json").progress.phase_step == STEP
    again = drumbeat(tmp_path, "--resume", "tiny", "--debug", expect=None)  # steps into it
    assert f"NaN or Inf loss at step {STEP} on rank 0" in again.stdout + again.stderr


@pytest.mark.slow
def test_such_a_step_can_be_skipped(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), *POISONED, "--debug", "on_nonfinite=skip")
    result = Result.require(latest(tmp_path).result)
    assert result.steps == 42
    assert result.best["accuracy"] > 0.7


@pytest.mark.slow
def test_ranks_that_have_drifted_apart_end_the_attempt(tmp_path: Path) -> None:
    done = drumbeat(tmp_path, str(write_config(tmp_path)), "--procs", "2", "model._target_=tests.tiny.Drifts",
                    "micro_batch_size=null", "watchdog.desync_check_steps=6", "launch.restarts=0", expect=1)
    assert "DivergedError: no two ranks' weights are the same after step 12" in " ".join(done.stdout.split())


@pytest.mark.parametrize("dtypes", [[torch.float32] * 3, [torch.float32, torch.float64, torch.float32],
                                    [torch.bfloat16], []])
def test_the_norm_of_the_gradient_is_torchs(dtypes: list[torch.dtype]) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = [torch.randn(7, 5, generator=generator).to(dtype) for dtype in dtypes]
    ours, theirs = total_norm(gradients), nn.utils.get_total_norm(gradients)
    assert (ours.dtype, float(ours)) == (theirs.dtype, float(theirs))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(("values", "found"), [
    ([[1.0, 2.0], [3e38]], 0), ([[1.0, NAN], [3.0]], 1), ([[1.0, 2.0], [INF]], 1), ([[-INF]], 1), ([], 0)])
@pytest.mark.parametrize("kind", ["strided", "sparse", "complex"])
def test_gradients_that_are_not_finite_are_found_and_none_is_changed(values: list[list[float]], found: int, kind: str
                                                                     ) -> None:
    """Those that torch's pass does not take, too: there the norm says it, and a square of 3e38 is Inf."""
    dtype = torch.complex128 if kind == "complex" else torch.float64 if kind == "sparse" else torch.float32
    gradients = [torch.tensor(row, dtype=dtype) for row in values]
    copies = [one.clone() for one in gradients]
    asked = [one.to_sparse() for one in gradients] if kind == "sparse" else gradients
    assert float(Scan(gradients, torch.device("cpu"))(asked)) == found
    assert all(torch.equal(one.nan_to_num(), copy.nan_to_num()) for one, copy in zip(gradients, copies, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_first_gradient_is_the_scale_unless_the_loss_is_not_finite(dtype: torch.dtype) -> None:
    for loss in (0.0, -2.5, 1e38):
        assert torch.equal(first_gradient(1 / 3, torch.tensor(loss, dtype=dtype)), torch.tensor(1 / 3, dtype=dtype))
    for loss in (NAN, INF, -INF):
        assert first_gradient(1 / 3, torch.tensor(loss, dtype=dtype)).isnan()

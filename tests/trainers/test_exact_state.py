"""State of unusual kinds in a model: a stopped and resumed run has the same bits of it, on one rank and on two."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from drumbeat.configs.load import load
from drumbeat.configs.run.folder import RunDir
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.commands.preflight import preflight
from drumbeat.trainers.guards import compare_ranks
from drumbeat.trainers.worker import build
from drumbeat.trainers.world import World
from tests.ranks import on_ranks
from tests.trainers.in_process import ALONE, CONFIG

HERE = "tests.trainers.test_exact_state"


class Tied(nn.Module):
    """Two layers with one weight, of which the checkpoint holds two copies."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
        self.last.weight = self.first.weight

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(self.first(rows).tanh())  # type: ignore[no-any-return]


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).T


class Parametrized(nn.Sequential):
    """Spectral norm has buffers that each forward pass changes."""

    def __init__(self) -> None:
        last = nn.Linear(4, 4)
        parametrize.register_parametrization(last, "weight", Symmetric())
        super().__init__(parametrizations.spectral_norm(nn.Linear(4, 4)), parametrizations.weight_norm(nn.Linear(4, 4)),
                         parametrizations.orthogonal(nn.Linear(4, 4)), last)


class Buffers(nn.Module):
    """Buffers of types that are less usual, which change with each batch and take part in the output."""

    TYPES = (torch.bool, torch.complex64, torch.float8_e4m3fn, torch.int16, torch.uint16, torch.bfloat16, torch.float64)

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        for number, kind in enumerate(self.TYPES):
            self.register_buffer(f"buffer{number}", torch.zeros(4, dtype=torch.int32).to(kind))

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
            for number, kind in enumerate(self.TYPES):
                self.get_buffer(f"buffer{number}").copy_((self.seen % 7 + torch.arange(4)).to(kind))
        each = [self.get_buffer(f"buffer{number}").to(torch.complex64).real for number in range(len(self.TYPES))]
        return rows + torch.stack(each).sum(0) / 10


class Complex(nn.Module):
    """A complex parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4, dtype=torch.complex64))

    def forward(self, rows: Tensor) -> Tensor:
        return (rows.to(torch.complex64) @ self.weight).abs()


class Extra(nn.Module):
    """State that is no tensor, and one whose text grows longer: the steps so far, and a scale."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.steps: list[int] = []
        self.scale = torch.ones(1)

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps, "scale": self.scale, "kind": "extra"}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.steps, self.scale = [*state["steps"]], state["scale"].clone()

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            self.steps.append(100 * len(self.steps))
            self.scale = self.scale * 1.1
        return self.layer(rows) * self.scale  # type: ignore[no-any-return]


class Everything(nn.Sequential):
    """Rows float [N, 4] -> [N, 3]."""

    def __init__(self) -> None:
        super().__init__(Tied(), Parametrized(), Buffers(), nn.Sequential(Extra()), Complex(), nn.Linear(4, 3))


OPTIMIZER = "{_target_: torch.optim.Adam, lr: 0.05}"
WORDS = [f"model={{_target_: {HERE}.Everything}}", "evaluation.monitor=loss", "evaluation.mode=min",
         "phases.all.start_from=best", f"phases.head.optimizer={OPTIMIZER}", f"phases.all.optimizer={OPTIMIZER}"]


def trained(folder: Path, world: World, stop_after: Sequence[int] = ()) -> tuple[str, list[float]]:
    """The digest of the weights of a run that was stopped after these steps, and its losses on this rank."""
    run, losses = RunDir(folder), []
    if world.is_main:
        run.path.mkdir(parents=True, exist_ok=True)
        (run.path / "rows.yaml").write_text(CONFIG)
        run.config.touch()
    for stop in (*stop_after, None):
        if world.is_main:
            run.claim_attempt()
        world.broadcast(torch.zeros(1))
        attempt = run.newest_attempt()
        assert attempt is not None
        config = load(run.path / "rows.yaml", WORDS).config
        training = build(run, attempt, config, build_sets(config), world, threads=1, debug=True)

        log_step = training.log.step

        def step(*values: Any, stop: int | None = stop, training: Any = training, attempt: Any = attempt,
                 log_step: Any = log_step, **named: Any) -> None:
            losses.append(float(values[1]))
            if training.progress.step == stop:
                attempt.request_stop("stopped")
            log_step(*values, **named)

        training.log.step = step  # type: ignore[method-assign]
        training.run()
        training.checkpoints.close()
        training.saver.tracker.close()
        training.watchdog.close()
        compare_ranks(training.model, world, 0)
    return weights_sha256(training.model.state_dict()), losses


def test_a_resumed_run_has_the_same_bits(tmp_path: Path) -> None:
    """Stopped in both phases; the second one starts from the best weights."""
    straight = trained(tmp_path / "straight", ALONE)
    assert trained(tmp_path / "stopped", ALONE, (2, 8)) == straight


def test_the_check_before_a_run_has_nothing_to_say(tmp_path: Path) -> None:
    """Its rehearsal saves and loads the same state, on two ranks, too."""
    (tmp_path / "rows.yaml").write_text(CONFIG)
    notes = preflight(load(tmp_path / "rows.yaml", WORDS).config, world_size=2)["notes"]
    assert [note for note in notes if "rehearsed" in note or "checkpoint" in note] == []


def on_two_ranks(world: World, folder: str) -> None:
    straight = trained(Path(folder) / "straight", world)
    stopped = trained(Path(folder) / "stopped", world, (2, 8))
    digests = [world.share(straight[0]), straight[0], stopped[0]]
    assert len(set(digests)) == 1, digests
    assert stopped[1] == straight[1]


@pytest.mark.slow
def test_on_two_ranks(tmp_path: Path) -> None:
    on_ranks(2, on_two_ranks, tmp_path)

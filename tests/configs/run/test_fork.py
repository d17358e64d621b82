"""The parts of a fork: which config a run had at which step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.changes import differences, kept, taken
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress, Span
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork, Part, kept_before, part_of, parts_until, progress_at_step, with_kept
from drumbeat.configs.schema import Config

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "momentum": 0.9}
PHASES = {name: {"epochs": 2, "optimizer": SGD} for name in ("head", "body", "all")}


def config(**changes: Any) -> Config:
    return build_config([Layer(origin="test", values={
        "name": "small", "batch_size": 8, "model": {"_target_": "nets.Net"},
        "data": {"train": {"_target_": "sets.Folder"}}, "phases": PHASES, **changes})])


def resumed(*configs: tuple[int, Config]) -> CheckpointState:
    """The state at step 100 of a run that was resumed at each of these steps with a config."""
    progress, (_, before) = Progress(), configs[0]
    for step, after in configs[1:]:
        progress = taken(Progress(step=step, changes=progress.changes), kept(before), after, attempt=1, user="", time=1)
        before = after
    return CheckpointState(progress=Progress(step=100, changes=progress.changes),
                           config=json.loads(json.dumps(kept(before))))


FIRST = config()
OTHERS = [
    config(batch_size=4),
    config(phases={**PHASES, "body": {**PHASES["body"], "optimizer": {"_target_": "torch.optim.Adam"}}}),
    config(phases={**PHASES, "more": {"epochs": 1, "optimizer": SGD, "clip_norm": 1.0}}),
    config(phases={name: PHASES[name] for name in ("head", "body")}),
    config(phases={**PHASES, "head": {**PHASES["head"], "average_every": None}}, on_nonfinite="skip"),
    config(budget={"steps": 50}, phases={**PHASES, "head": {**PHASES["head"], "scheduler": {"_target_": "a.B", "x": 1}}
                                         }),
]


@pytest.mark.parametrize("other", OTHERS)
def test_what_a_run_was_before_each_resume(other: Config) -> None:
    """Whatever has changed, also keys and phases that were not there, and values that are null."""
    for before, after in ((FIRST, other), (other, FIRST)):
        state = resumed((0, before), (40, after))
        for step, then in ((30, before), (40, before), (41, after), (100, after)):
            assert differences(kept_before(after, state, step), kept(then)) == []
            assert differences(kept(with_kept(after, kept_before(after, state, step))), kept(then)) == []


def test_a_part_ends_where_the_config_has_changed() -> None:
    second, third = OTHERS[0], config(batch_size=2)
    state = resumed((0, FIRST), (20, second), (60, third))
    parts = parts_until(third, state, 60)
    assert [(part.until, part.config["batch_size"]) for part in parts] == [(20, 8), (60, 4)]
    assert [part.until for part in parts_until(third, state, 10)] == [10]


def test_the_part_follows_from_the_checkpoint(tmp_path: Path) -> None:
    run, parts = RunDir(tmp_path), tuple(Part(until=step, config={"batch_size": step}) for step in (20, 60))
    assert part_of(run, 5) is None, "it is no fork"
    fork = Fork(parent="20260101-000000-aaaaa", folder="/runs", step=60, start=0, phase=0, parts=parts)
    fork.write(run.fork)
    assert [part_of(run, step) for step in (-1, 19, 20, 59, 60, 70)] == [*parts[:1] * 2, *parts[1:] * 2, None, None]
    assert fork.text == "20260101-000000-aaaaa at step 60"


def test_what_a_resume_may_not_change_stays() -> None:
    after = with_kept(config(seed=7, launch={"restarts": 9}), kept(OTHERS[0]))
    assert (after.seed, after.launch.restarts, after.batch_size) == (7, 9, 4)
    assert list(after.phases) == ["head", "body", "all"]


def test_the_phase_of_an_earlier_step() -> None:
    def span(phase: int, first: int, steps: int) -> Span:
        return Span(phase=phase, first_step=first, steps=steps, samples=0, digest="", attempt=0, world_size=1)

    progress = Progress(step=30, phase=1, phase_step=20, ledger=(span(0, 0, 6), span(0, 6, 4), span(1, 0, 20)))
    found = {step: progress_at_step(progress, step) for step in (1, 10, 11, 30)}
    assert [(one.phase, one.phase_step) for one in found.values()] == [(0, 1), (0, 10), (1, 1), (1, 20)]
    assert found[30] == progress

"""Where a run continues in its data after a change of the batch size: every sample is still read once an epoch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.run.checkpoint_records import ConfigChange, PhaseEnd, Progress, Span
from drumbeat.configs.schema import Budget, Config
from drumbeat.data.order import Stream
from drumbeat.data.sampling import LengthBuckets
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.position import build_schedules, check_position, with_phase_values


def config(batch_size: int, epochs: float = 2, own: int | None = None, **data: Any) -> Config:
    optimizer = {"_target_": "torch.optim.SGD"}
    return build_config([Layer(origin="test", values={
        "name": "x", "batch_size": batch_size, "model": {"_target_": "x"}, "data": data,
        "phases": {"head": {"epochs": 1, "optimizer": optimizer},
                   "all": {"epochs": epochs, "batch_size": own, "optimizer": optimizer}}})])


def change(step: int, key: str, old: Any, new: Any) -> ConfigChange:
    return ConfigChange(key=key, old=old, new=new, step=step, attempt=1, user="me", time=1.0)


def progress(head: int, body: int, *changes: ConfigChange) -> Progress:
    """After this many steps of both phases."""
    ledger = [Span(phase=number, first_step=0, steps=steps, samples=1, digest="", attempt=0, world_size=1)
              for number, steps in enumerate((head, body)) if steps]
    return Progress(step=head + body, phase=int(body > 0), phase_step=body or head, ledger=tuple(ledger),
                    changes=changes)


def test_without_a_change_the_steps_follow_from_the_config() -> None:
    assert build_schedules(config(4), 10) == build_schedules(config(4), 10, progress(3, 2)) == [
        Schedule(10, 4, 1), Schedule(10, 4, 2)]


def test_the_average_of_a_phase_may_refer_to_its_length() -> None:
    one = config(4)
    body = replace(one.phases["all"], average={"fn": {"decay": "${1e-6 ** (1 / phase.steps)}"}})  # type: ignore[type-var]
    found = with_phase_values(replace(one, phases={"all": body}), [Schedule(10, 4, 2)])
    assert found.phases["all"].average == {"fn": {"decay": 1e-6 ** 0.2}}  # type: ignore[union-attr]


def test_a_new_batch_size_holds_from_the_step_that_was_reached() -> None:
    """The first phase is finished: its steps stay as they were."""
    found = build_schedules(config(2), 10, progress(3, 2, change(5, "batch_size", 4, 2)))
    assert found == [Schedule(10, 4, 1), Schedule(10, 2, 2, ((2, 4),))]
    assert [one.steps for one in found] == [3, 8]
    assert [one.overshoot for one in found] == [2, 0]
    assert found[1].positions(2) == range(8, 10)


def test_a_batch_size_that_changes_after_a_phase_leaves_its_batches_as_they_were() -> None:
    """Windows of batches that are sorted by length are those that the phase has read."""
    now, n = config(3, bucket_batches=4), 42
    at = progress(11, 0, change(11, "batch_size", 4, 3))
    schedules = build_schedules(now, n, at)
    assert schedules == [Schedule(n, 4, 1), Schedule(n, 3, 2)]
    check_position(now, schedules, at)
    read = [[*LengthBuckets(one, Stream(n, 0, 0), range(n), batches=4, rank=0, world_size=1)]
            for one in (Schedule(n, 4, 1), schedules[0])]
    assert np.array_equal(*read)
    longer = progress(11, 0, change(11, "batch_size", 4, 3), change(11, "phases.head.epochs", 0.5, 1))
    assert build_schedules(config(3), 84, longer)[0] == Schedule(84, 3, 1, ((11, 4),))


def test_several_changes_of_the_run_and_of_the_phase() -> None:
    now = progress(3, 5, change(4, "batch_size", 4, 3), change(6, "phases.all.batch_size", None, 2),
                   change(8, "phases.all.batch_size", 2, 5))
    assert build_schedules(config(3, own=5), 10, now)[1] == Schedule(10, 5, 2, ((1, 4), (2, 3), (2, 2)))


def test_a_change_before_the_phase_or_back_again_is_none() -> None:
    assert build_schedules(config(2), 10, progress(3, 2, change(3, "batch_size", 4, 2)))[1] == Schedule(10, 2, 2)
    back = progress(3, 2, change(5, "batch_size", 4, 2), change(5, "batch_size", 2, 4))
    assert build_schedules(config(4), 10, back)[1] == Schedule(10, 4, 2)


def test_a_phase_cannot_end_before_where_it_is() -> None:
    at = progress(3, 4, change(7, "phases.all.epochs", 2.0, 1.5))
    with pytest.raises(PreflightError, match=r"phase all has already trained for 1[.]6 epochs"):
        check_position(config(4, 1.5), build_schedules(config(4, 1.5), 10, at), at)
    check_position(config(4, 1.7), build_schedules(config(4, 1.7), 10, at), at)


@pytest.mark.parametrize(("key", "old", "now"), [
    ("batch_size", 4, config(2, bucket_batches=3)), ("phases.all.epochs", 2.0, config(4, 3, bucket_batches=3))])
def test_batches_that_are_sorted_by_length_keep_their_size(key: str, old: Any, now: Config) -> None:
    """A window of them has dealt its samples to steps that are still to come."""
    at = progress(3, 2, change(5, key, old, 0))
    with pytest.raises(PreflightError, match="samples would be left out or used twice"):
        check_position(now, build_schedules(now, 10, at), at)
    before = progress(3, 0, change(3, key, old, 0))
    check_position(now, build_schedules(now, 10, before), before)


def test_a_budget_cuts_the_phases_and_leaves_out_those_after_it() -> None:
    """Of two phases of three and five steps."""
    def budget(steps: int, at: Progress | None = None) -> list[int]:
        now = replace(config(4), budget=Budget(steps=steps))
        return [one.steps for one in build_schedules(now, 10, at)]

    assert [budget(steps) for steps in (1, 3, 4, 7, 8, 9)] == [[1], [3], [3, 1], [3, 4], [3, 5], [3, 5]]
    assert budget(4, progress(3, 2)) == [3, 2], "what was taken stays"


def test_a_budget_that_is_used_up_already_is_refused() -> None:
    now, at = replace(config(4), budget=Budget(steps=4)), progress(3, 2)
    with pytest.raises(PreflightError, match="the run has already taken 5 steps"):
        check_position(now, build_schedules(now, 10, at), at)
    more = replace(config(4), budget=Budget(steps=5))
    check_position(more, build_schedules(more, 10, at), at)


@pytest.mark.parametrize(("reason", "steps"), [("patience", [2, 5]), ("target", [2, 5]), ("hours", [2])])
def test_a_phase_that_has_ended_early_is_as_long_as_it_was(reason: Any, steps: list[int]) -> None:
    """After the hours of the run there is no other phase."""
    at = replace(progress(2, 1 if reason != "hours" else 0), ended=(
        PhaseEnd(phase=0, steps=2, reason=reason, text=""),))
    assert [one.steps for one in build_schedules(config(4), 10, at)] == steps


def test_a_phase_that_has_ended_early_keeps_its_batch_size() -> None:
    at = replace(progress(2, 1, change(3, "batch_size", 4, 3)), ended=(
        PhaseEnd(phase=0, steps=2, reason="patience", text=""),))
    assert build_schedules(config(3), 10, at) == [Schedule(10, 4, 1).cut(2), Schedule(10, 3, 2, ((1, 4),))]


def test_a_trial_cuts_each_phase() -> None:
    assert [one.steps for one in build_schedules(replace(config(4), limit_batches=2), 10)] == [2, 2]
    assert [one.steps for one in build_schedules(replace(config(4), limit_batches=4), 10)] == [3, 4]

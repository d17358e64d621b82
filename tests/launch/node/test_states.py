"""The launcher's table of states: every state leads to an end, and every verdict to a state."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import get_args

import pytest

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Next
from drumbeat.launch.attempts.verdict import REASONS
from drumbeat.launch.node.launcher import Launcher
from drumbeat.launch.node.states import SIGNALS, TRANSITIONS, Event, Outcome, State
from tests.launch.tiny_plan import plan


def after(state: State) -> set[State]:
    """The states that may follow."""
    return {then for (before, _), then in TRANSITIONS.items() if before is state}


def test_every_state_leads_to_a_final_one_which_leads_nowhere() -> None:
    reached, can_end = {State.JOIN}, {State.LEAVE}
    for _ in State:
        reached |= {then for state in reached for then in after(state)}
        can_end |= {state for state in State if after(state) & can_end}
    assert reached == can_end == set(State)
    assert after(State.LEAVE) == set()


def test_each_outcome_and_each_verdict_has_a_next_state() -> None:
    assert {outcome for _, outcome in TRANSITIONS} == set(Outcome)
    verdicts = {outcome for outcome in Outcome if outcome.value in get_args(Next)}
    assert {outcome.value for outcome in verdicts} == set(get_args(Next))
    for decided in (State.DECIDE, State.WAIT):
        assert verdicts <= {outcome for state, outcome in TRANSITIONS if state is decided}


def test_only_a_restart_continues() -> None:
    assert [outcome for (state, outcome), then in TRANSITIONS.items()
            if state is State.DECIDE and then is not State.LEAVE] == [Outcome.RESTART]


def test_each_stop_reason_has_a_text() -> None:
    assert {event.value for event in Event} <= REASONS.keys()


@pytest.mark.parametrize("second", SIGNALS)
@pytest.mark.parametrize("first", SIGNALS)
def test_a_signal_sets_a_flag_and_the_first_is_kept(tmp_path: Path, first: signal.Signals,
                                                   second: signal.Signals) -> None:
    launcher = Launcher(RunDir(tmp_path), plan(tmp_path, "launch.gpus=0"))
    before = {number: signal.signal(number, launcher.on_signal) for number in SIGNALS}
    try:
        os.kill(os.getpid(), first)
        os.kill(os.getpid(), second)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert launcher.received is SIGNALS[first]
    assert list(tmp_path.glob("attempts*")) == []

"""The state of a sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from drumbeat.configs.run.records import Result
from drumbeat.launch.sweeps.states import best_of, cells, facts, state_text, states_of, status_text
from tests.launch.sweeps.made import ID, made_sweep, write_trial


def test_status_of_a_sweep(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"phases.head.optimizer.lr": "1e-3,3e-4", "seed": "0..2"})
    write_trial(folder, 0, "finished", best=0.5, step=100)
    write_trial(folder, 1, "finished", best=0.25, step=100)
    write_trial(folder, 2, "failed", step=10)
    write_trial(folder, 4, "stopped", best=0.75, step=50)
    sweep = replace(folder.read(), halted=True)
    states = states_of(folder, sweep)
    text = status_text(folder, sweep, states)
    assert text == f"""\
sweep      s: 6 trials
state      stopped: 2 waiting, 2 finished, 1 stopped, 1 failed
best       loss 0.2500, trial 1: phases.head.optimizer.lr=1e-3 seed=1
queue      not running
resume     drumbeat resume {folder.path}
repeat     drumbeat rerun {folder.path / f'{ID}-0001'}
folder     {folder.path}

trial  state     done    loss  lr    seed
    1  finished  100%  0.2500  1e-3  1
    0  finished  100%  0.5000  1e-3  0
    4  stopped    50%  0.7500  3e-4  1
    2  failed     10%          1e-3  2
... and 2 more"""
    assert cells(folder, sweep, states)[:6] == ("sweep", "s", "stopped", "2/6", "43%", "loss 0.2500")
    found = facts(folder, sweep, states)
    assert (found["best"], found["trials"][4]["state"], found["trials"][5]["id"]) == (1, "stopped", f"{ID}-0005")


def test_the_state_as_a_whole(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    sweep = folder.read()
    assert state_text(sweep, states_of(folder, sweep)) == "waiting"
    write_trial(folder, 0, "finished", step=100)
    write_trial(folder, 1, "failed")
    assert state_text(sweep, states_of(folder, sweep)) == "ended"
    write_trial(folder, 1, "finished")
    assert state_text(sweep, states_of(folder, sweep)) == "finished"


def test_the_larger_is_better_where_the_metric_is_maximized(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..2"}, mode="max")
    for number, best in enumerate((0.2, 0.9, float("nan"))):
        write_trial(folder, number, "finished", best=best)
    sweep = folder.read()
    assert [one.trial.number for one in best_of(sweep, states_of(folder, sweep))] == [1, 0]


def test_pruned_trials(tmp_path: Path) -> None:
    folder = made_sweep(tmp_path, {"seed": "0..1"}, asha=True, pruned=(1,))
    write_trial(folder, 0, "finished", step=100)
    write_trial(folder, 1, "stopped", step=11)
    sweep = folder.read()
    states = states_of(folder, sweep)
    assert ([one.state for one in states], state_text(sweep, states)) == (["finished", "pruned"], "finished")


def test_a_trial_that_had_nothing_left_to_do_is_done(tmp_path: Path) -> None:
    """It was killed after its last step, so its last attempt took none."""
    folder = made_sweep(tmp_path, {"seed": "0..1"})
    Result(steps=100, samples_seen=400, overshoot=0, best={}).write(
        write_trial(folder, 0, "finished", steps=0).result)
    states = states_of(folder, folder.read())
    assert (states[0].done, cells(folder, folder.read(), states)[4]) == ("100%", "50%")

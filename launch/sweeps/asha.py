"""Successive halving, asynchronously: which trials are trained on, and which are left where they are.

A trial that reaches a rung, at 1/9 and 1/3 of its steps, goes on if it is among the best third of those that have
reached this rung so far; otherwise it is pruned: it saves a checkpoint and stops. As others arrive, the best third
grows: then the best of the pruned ones is resumed, bit for bit where it was, before a new trial is started.
(L. Li et al., A System for Massively Parallel Hyperparameter Tuning, MLSys 2020, algorithm 2, with eta = 3.)
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace

from drumbeat.configs.run.sweep import Sweep

ETA = 3
"""One of so many trials goes on at each rung."""
RUNGS = 2
"""The first rung is at 1 / ETA**RUNGS of the steps."""


def rung_step(rung: int, steps: int) -> int:
    """The step of a rung of a trial with so many steps."""
    return -(-steps // int(ETA ** (RUNGS - rung)))


def reported(sweep: Sweep, number: int, step: int, steps: int, best: float | None) -> Sweep:
    """The sweep, once trial `number` has taken `step` of its `steps`, and its best metric so far is known: with its
    metric at the rungs that it has reached. It is pruned if it must not go on."""
    while best is not None and not is_pruned(sweep, number) and (rung := len(_values(sweep, number))) < RUNGS and (
            0 < rung_step(rung, steps) <= step < steps):
        values = (*_values(sweep, number), best)
        sweep = replace(sweep, rungs={**sweep.rungs, str(number): values})
        if number not in best_third(sweep, rung):
            sweep = replace(sweep, pruned=(*sweep.pruned, number))
    return sweep


def promoted(sweep: Sweep, running: Collection[int] = ()) -> list[int]:
    """The pruned trials that may go on now, those at the highest rung first, without those that are still saving."""
    return [number for rung in reversed(range(RUNGS)) for number in best_third(sweep, rung)
            if number in sweep.pruned and number not in running and len(_values(sweep, number)) == rung + 1]


def best_third(sweep: Sweep, rung: int) -> list[int]:
    """The trials that go on from a rung, of those that have reached it; best first."""
    sign = 1 if sweep.mode == "min" else -1
    found = [(sign * values[rung], int(number)) for number, values in sweep.rungs.items() if len(values) > rung]
    ranked = sorted((math.inf if math.isnan(value) else value, number) for value, number in found)
    return [number for _, number in ranked[:len(ranked) // ETA]]


def is_pruned(sweep: Sweep, number: int) -> bool:
    return number in sweep.pruned


def _values(sweep: Sweep, number: int) -> tuple[float, ...]:
    return sweep.rungs.get(str(number), ())

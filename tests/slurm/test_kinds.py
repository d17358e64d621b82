"""What is tried every day covers each pair of circumstances; the rest is for `make test-slurm`."""

from __future__ import annotations

from itertools import product
from types import ModuleType

from tests.slurm import test_requeue_and_handover, test_signals_and_failures
from tests.slurm.kinds import options

PROCTRACKS, ACCOUNTING = ("cgroup", "linuxproc", "pgid"), (True, False)
MODULES = {"REQUEUE": test_signals_and_failures, "CANCEL": test_requeue_and_handover}
"""PreemptMode of the partition that a module's tests submit to."""


def everyday(module: ModuleType, preempt: str) -> set[tuple[str, str, str, bool]]:
    """Test, ProctrackType, PreemptMode and whether there is accounting, of all that takes a few seconds."""
    found = set()
    for name, test in vars(module).items():
        marks = getattr(test, "pytestmark", []) if name.startswith("test_") else []
        if any(mark.name == "slow" for mark in marks):
            continue
        for param in [param for mark in marks if mark.args[:1] == ("cluster",) for param in mark.args[1]]:
            if not any(mark.name == "matrix" for mark in param.marks):
                cluster = options(param.values[0])
                found.add((name, cluster["proctrack"], preempt, cluster["accounting"]))
    return found


def test_every_pair_is_tried_every_day() -> None:
    cells = {cell for preempt, module in MODULES.items() for cell in everyday(module, preempt)}
    assert {cell[1:3] for cell in cells} == set(product(PROCTRACKS, MODULES))
    assert {cell[1::2] for cell in cells} == set(product(PROCTRACKS, ACCOUNTING))
    assert {cell[2:] for cell in cells} == set(product(MODULES, ACCOUNTING))
    names = {cell[0] for cell in cells}
    assert len(names) > 20
    assert {(cell[0], cell[3]) for cell in cells} == set(product(names, ACCOUNTING))
    assert all(len({cell[1] for cell in cells if cell[0] == name}) >= 2 for name in names), "on two ProctrackTypes each"

"""What is tried every day covers each pair of circumstances; the rest is for `make test-slurm`."""

from __future__ import annotations

from itertools import product
from types import ModuleType

from tests.slurm import test_launcher, test_succession

PROCTRACKS, PREEMPTS, ACCOUNTS = ("cgroup", "linuxproc", "pgid"), ("REQUEUE", "CANCEL"), (True, False)


def everyday(*modules: ModuleType) -> set[tuple[str, str, str, bool]]:
    """Test, ProctrackType, PreemptMode and whether there is accounting, of all that takes a few seconds."""
    found = set()
    for name, test in [item for module in modules for item in vars(module).items() if item[0].startswith("test_")]:
        marks = getattr(test, "pytestmark", [])
        for mark in marks:
            if mark.args[:1] == ("cluster",) and not any(other.name == "slow" for other in marks):
                found |= {(name, param.values[0]["proctrack"], param.values[0].get("preempt", "REQUEUE"),
                           param.values[0]["accounting"]) for param in mark.args[1] if not param.marks}
    return found


def test_every_pair_is_tried_every_day() -> None:
    cells = everyday(test_launcher, test_succession)
    assert {cell[1:3] for cell in cells} == set(product(PROCTRACKS, PREEMPTS))
    assert {cell[1::2] for cell in cells} == set(product(PROCTRACKS, ACCOUNTS))
    assert {cell[2:] for cell in cells} == set(product(PREEMPTS, ACCOUNTS))
    names = {cell[0] for cell in cells}
    assert len(names) > 20
    assert {(cell[0], cell[3]) for cell in cells} == set(product(names, ACCOUNTS))
    assert all(len({cell[1] for cell in cells if cell[0] == name}) >= 2 for name in names), "on two ProctrackTypes each"

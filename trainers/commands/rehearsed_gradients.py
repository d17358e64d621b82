"""Parameters without a gradient in a rehearsal, and what to do about them."""

from __future__ import annotations

from collections.abc import Sequence

from drumbeat.configs.errors import Fault
from drumbeat.configs.yaml_text import inline

SHOWN = 6
"""The largest number of names in a fault."""


def without_gradient(passes: list[list[str]], where: str, world_size: int, notes: list[str], *,
                     find_unused: bool) -> list[Fault]:
    """Parameters that the optimizer is given and that get no gradient: DistributedDataParallel fails on them."""
    missing = sorted({name for one in passes for name in one})
    if not missing:
        return []
    sometimes = "" if passes[0] == passes[-1] else " in some passes"
    what = f"{len(missing)} parameters get no gradient{sometimes}" if len(missing) > 1 else (
        f"a parameter gets no gradient{sometimes}")
    if find_unused or world_size == 1:
        but = "" if find_unused else ", and the run would fail on several ranks"
        notes.append(f"{what} in phase {where.removeprefix('phases.')}{but}: {', '.join(missing[:SHOWN])}")
        return []
    return [Fault(what=f"{what}, which DistributedDataParallel refuses on {world_size} ranks", where=where,
                  given=listed(missing),
                  remedy=f"If they are never used, freeze them: {where}.freeze={inline(_frozen(missing))}\n"
                         "If only some steps use them: find_unused_parameters=true")]


def _frozen(missing: Sequence[str]) -> list[str]:
    """The names with which a phase freezes parameters: those of the modules that hold them. The task's have one."""
    return [*dict.fromkeys("task" if name.startswith("task.") else name.rpartition(".")[0] or name
                           for name in missing)][:SHOWN]


def listed(lines: Sequence[str]) -> str:
    """The first lines, and how many more there are."""
    more = f"\n... and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
    return "\n".join(lines[:SHOWN]) + more

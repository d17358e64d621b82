"""How the batch of a step is cut into parts, and which of them a rank computes."""

from __future__ import annotations

from dataclasses import dataclass

from drumbeat.data.order import shard
from drumbeat.trainers.world import World


@dataclass(frozen=True, kw_only=True)
class Division:
    """The batch of each step is cut into `count` parts, of which this rank computes its `own`.

    Without virtual ranks there is one part for each rank. With them, the number of parts is the config's, and a rank
    computes one after the other: what is computed does not depend on how many ranks there are.
    """

    count: int
    own: range
    virtual: bool

    @classmethod
    def of(cls, world: World, virtual_ranks: int | None) -> Division:
        """That of a rank. `virtual_ranks` is at least the world size, or None."""
        if virtual_ranks is None:
            return cls(count=world.size, own=range(world.rank, world.rank + 1), virtual=False)
        return cls(count=virtual_ranks, own=shard(virtual_ranks, world.rank, world.size), virtual=True)

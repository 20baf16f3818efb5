"""Whether the tables fit into memory, and on how many ranks. Needs no process group and no GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.plan import GIB, Plan, make_plan
from lightning_ccn.sharding.tables import EmbeddingTable

HEADROOM = 0.2  # by default, the share of a rank's memory that tables leave free
# World sizes to try: up to one machine of 8, then whole machines.
WORLD_SIZES = (1, 2, 3, 4, 5, 6, 7, 8, *range(16, 1025, 8))


@dataclass(frozen=True)
class Estimate:
    """A plan, compared with the memory of a rank.

    Attributes:
        plan: The plan for the given world size.
        memory_gib: Memory of one rank in GiB.
        headroom: Share of the memory that is kept free for layers, activations, communication and the runtime.
        needed: The smallest number of ranks that was tried at which every rank's tables fit, or None.
        tried: The largest number of ranks that was tried.
    """

    plan: Plan
    memory_gib: float
    headroom: float
    needed: int | None
    tried: int = WORLD_SIZES[-1]

    @property
    def fits(self) -> bool:
        """Whether the tables and their optimizer state leave the headroom free on every rank."""
        return max(self.plan.rank_bytes()) <= _room(self.memory_gib, self.headroom)

    def __str__(self) -> str:
        """The plan, and a sentence that says whether it fits."""
        room = _room(self.memory_gib, self.headroom) / GIB
        answer = "it fits" if self.fits else "it does NOT fit"
        if self.needed is not None:
            needed = f"the fewest ranks that it fits on: {self.needed}"
        else:
            needed = f"it does not fit on up to {self.tried} ranks: place the largest tables row_wise"
        return (
            f"{self.plan}\n{answer} on {self.plan.world_size} rank(s) of {self.memory_gib:g} GiB, of which tables may "
            f"take {room:.2f} GiB ({self.headroom:.0%} headroom); {needed}"
        )


def estimate(
    tables: Sequence[EmbeddingTable],
    world_size: int,
    memory_gib: float,
    optimizer: str = "rowwise_adagrad",
    plan: Mapping[str, str] | None = None,
    headroom: float = HEADROOM,
) -> Estimate:
    """Compare the plan for `world_size` ranks with the memory of a rank, and find the smallest sufficient world size.

    >>> answer = estimate([EmbeddingTable("user", 2_000_000_000, 64)], world_size=4, memory_gib=80)
    >>> answer.fits, answer.needed
    (False, 8)

    Raises:
        ShardingError: The plan does not work with `world_size` ranks.
    """
    return estimate_plans(lambda ranks: make_plan(tables, ranks, optimizer, plan), world_size, memory_gib, headroom)


def estimate_plans(
    plan_for: Callable[[int], Plan],
    world_size: int,
    memory_gib: float,
    headroom: float = HEADROOM,
    sizes: Sequence[int] = WORLD_SIZES,
) -> Estimate:
    """`estimate`, of the plans that a function makes for a number of ranks; `sizes` are the numbers to try.

    Raises:
        ShardingError: The plan does not work with `world_size` ranks.
    """
    room = _room(memory_gib, headroom)
    return Estimate(
        plan=plan_for(world_size),
        memory_gib=memory_gib,
        headroom=headroom,
        needed=next((ranks for ranks in sizes if _fits(plan_for, ranks, room)), None),
        tried=sizes[-1],
    )


def _fits(plan_for: Callable[[int], Plan], ranks: int, room: float) -> bool:
    try:
        return max(plan_for(ranks).rank_bytes()) <= room
    except ShardingError:  # for example, the plan names a rank that does not exist at this world size
        return False


def _room(memory_gib: float, headroom: float) -> float:
    return memory_gib * GIB * (1 - headroom)

"""What a training step costs the ranks, for `ccn plan`: bytes that they exchange, activations and buffers.

The numbers are those of the run's first training batch, cut into as many slices as there are ranks; rank 0's is
counted. `sharding.traffic` has the formulas for what is exchanged. Of a rank's memory, besides the tables,

- activations: what autograd keeps of a forward pass over the slice, counted without tables on this machine, in
  float32 (in bf16-mixed it is less);
- buffers: everything that the rank sends and receives in a step, once each, and the layers' weights, gradients and
  AdaGrad accumulators, 12 bytes a weight.

What the allocator, kernels and the runtime take comes on top.
"""

from __future__ import annotations

from typing import NamedTuple

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError
from lightning_ccn.sharding import ShardingError
from lightning_ccn.sharding.measure import measure
from lightning_ccn.sharding.traffic import DIRECTIONS, MIB, StepTraffic, traffic
from lightning_ccn.training.preflight import Preflight

RANKS = (8, 64, 256)
VALUE_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
BYTES_A_WEIGHT = 12


class StepCost(NamedTuple):
    """The cost of a step for one of the ranks.

    Attributes:
        pages, items, distinct: Page views, exposed items and distinct items of rank 0's slice of the batch.
        traffic: What the ranks exchange.
        activations: Bytes that autograd keeps for the backward pass.
        buffers: Bytes of the busiest rank's buffers, and of the layers.
    """

    pages: int
    items: int
    distinct: int
    traffic: StepTraffic
    activations: int
    buffers: float


def step_cost(run: Preflight, batches: PageBatches, world_size: int, device_type: str, memory_gib: float) -> StepCost:
    """The cost of a training step on `world_size` ranks, from the first of `batches`.

    Raises:
        DataError: The batch cannot be read, or cannot be cut for so many ranks.
        ShardingError: The plan cannot work on so many ranks.
    """
    plan = run.plan(world_size, device_type, memory_gib)
    batches.order.lanes_of(0, world_size)
    batches.rank, batches.world_size = 0, world_size
    batch: PageBatch = batches[0, 0]
    system = run.model.new_system(device_type)

    def forward() -> object:
        prediction = system(batch)
        return prediction, system.auxiliary_losses(prediction, batch)

    lookups, activations = measure(system, forward)
    layers = sum(parameter.numel() for parameter in system.parameters() if not parameter.is_meta)
    exchanged = traffic(plan, lookups, 4 * layers, VALUE_BYTES[run.strategy.communication_dtype])
    buffers = max(sum(exchanged.of_rank(rank)) for rank in range(world_size)) + BYTES_A_WEIGHT * layers
    distinct = batch.item[batch.item.keys()[0]].values().numel()
    return StepCost(batch.pages, batch.items, distinct, exchanged, activations, buffers)


def describe_steps(run: Preflight, world_size: int, device_type: str, memory_gib: float) -> str:
    """The bytes of every table on `world_size` ranks (or on 8 if it is 1), and the totals on `RANKS`."""
    shown = world_size if world_size > 1 else RANKS[0]
    try:
        batches = run.datamodule.train_dataloader().batches
    except DataError as error:
        return f"\nwhat a training step costs is not known: {error}"
    costs: dict[int, StepCost] = {}
    notes = []
    for ranks in dict.fromkeys((shown, *RANKS)):
        try:
            costs[ranks] = step_cost(run, batches, ranks, device_type, memory_gib)
        except (DataError, ShardingError) as error:
            notes.append(f"a training step on {ranks} ranks: {error}")
    lines = []
    if cost := costs.get(shown):
        lines = [
            f"\na training step on {shown} ranks, of {cost.pages:,} pages with {cost.items:,} exposed and "
            f"{cost.distinct:,} distinct items a rank; a rank sends, on average,",
            str(cost.traffic),
        ]
    if totals := [_totals(ranks, costs[ranks]) for ranks in RANKS if ranks in costs]:
        rows = [("ranks", "pages", *DIRECTIONS, "layers", "busiest link", "activations", "buffers"), *totals]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines.append("\nMiB a rank a step, by the number of ranks")
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*lines, *notes])


def _totals(ranks: int, cost: StepCost) -> tuple[str, ...]:
    exchanged = cost.traffic
    tables = [sum(exchanged.mean(table, way) for table in exchanged.sent) for way in DIRECTIONS]
    sizes = (*tables, exchanged.layers, exchanged.busiest[2], cost.activations, cost.buffers)
    return str(ranks), f"{cost.pages:,}", *(f"{size / MIB:.2f}" for size in sizes)

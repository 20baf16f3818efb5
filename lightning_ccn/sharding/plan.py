"""Where each table's rows lie: plans by table, automatic plans, their sizes, and the question "does it fit?".

A plan is a dict from table name to one of

- `row_wise`: rows are cut into as many equal runs as there are ranks;
- `table_wise:2`: the whole table on rank 2 (`table_wise` alone: on the rank with the fewest bytes so far);
- `column_wise`: columns are cut into as many equal runs as there are ranks.

Tables without an entry, or with the entry `auto`, are placed by `automatic`:

- `balanced` (the default): tables of `ROW_WISE_BYTES` or more row-wise, the others whole, largest first, each to
  the rank with the fewest bytes. It reads nothing but sizes, so the same tables and world size give the same plan
  on every machine, and no rank holds more than its share of a large table.
- `torchrec`: TorchRec's `EmbeddingShardingPlanner`, which weighs an estimate of each placement's time. It assumes
  batch sizes, pooling factors and the bandwidths of large GPUs; for CPUs its choice means little, which is why it
  is not the default. (TorchRec's sharders offer it no row-wise bags on a CPU, though they run there; ours do.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.sharding_plan import column_wise, construct_module_sharding_plan, row_wise, table_wise
from torchrec.distributed.types import ShardingPlan, ShardingType

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.sharders import sharders
from lightning_ccn.sharding.tables import EmbeddingTable, collections, find_tables

ROW_WISE_BYTES = 64 * 2**20
GIB = 2**30
Optimizer = Literal["rowwise_adagrad", "adagrad", "sgd"]
Automatic = Literal["balanced", "torchrec"]
KINDS = ("row_wise", "table_wise", "column_wise", "data_parallel")


@dataclass(frozen=True)
class Plan:
    """A complete plan: every table with its placement, `table_wise` always with its rank."""

    tables: tuple[EmbeddingTable, ...]
    placement: Mapping[str, str]
    world_size: int
    optimizer: Optimizer

    def shards(self, table: EmbeddingTable) -> list[tuple[int, int, int]]:
        """(rank, rows, columns) of every shard of `table`."""
        kind, _, rank = self.placement[table.name].partition(":")
        if kind == "table_wise":
            return [(int(rank), table.rows, table.dim)]
        if kind == "column_wise":
            return [(r, table.rows, table.dim // self.world_size) for r in range(self.world_size)]
        block = math.ceil(table.rows / self.world_size)  # as TorchRec cuts: the last rank gets what is left
        return [(r, min(block, table.rows - r * block), table.dim) for r in range(self.world_size)]

    def rank_bytes(self) -> list[int]:
        """Bytes of weights and optimizer state on each rank."""
        total = [0] * self.world_size
        for table in self.tables:
            row_bytes = table.row_bytes + table.state_row_bytes(self.optimizer)
            for rank, rows, columns in self.shards(table):
                total[rank] += rows * row_bytes * columns // table.dim
        return total

    def __str__(self) -> str:
        """The plan as a table: one line a table, then the sum and the fullest rank."""
        head = ("table", "rows", "dim", "dtype", "kernel", "placement", "shards", "weights", "state", "GiB a rank")
        lines: list[tuple[str, ...]] = [head]
        for t in sorted(self.tables, key=lambda t: -t.rows * t.row_bytes):
            shards = self.shards(t)
            weights, state = t.rows * t.row_bytes, t.rows * t.state_row_bytes(self.optimizer)
            fullest = max(rows * columns for _, rows, columns in shards) / (t.rows * t.dim)
            sizes = (weights, state, (weights + state) * fullest)
            about = (t.name, f"{t.rows:,}", str(t.dim), str(t.dtype).removeprefix("torch."), t.kernel)
            lines.append((*about, self.placement[t.name], str(len(shards)), *(f"{b / GIB:.3f}" for b in sizes)))
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        left = {0, 3, 4, 5}
        text = [
            "  ".join(c.ljust(widths[i]) if i in left else c.rjust(widths[i]) for i, c in enumerate(line))
            for line in lines
        ]
        per_rank = self.rank_bytes()
        text.append(
            f"{sum(per_rank) / GIB:.3f} GiB of weights and {self.optimizer} state over {self.world_size} rank(s); "
            f"fullest rank {max(per_rank) / GIB:.3f} GiB, emptiest {min(per_rank) / GIB:.3f} GiB"
        )
        return "\n".join(line.rstrip() for line in text)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: world size, optimizer, and each table with its placement and bytes a rank."""
        tables = {
            t.name: asdict(t) | {"dtype": str(t.dtype).removeprefix("torch."), "placement": self.placement[t.name]}
            for t in self.tables
        }
        return {
            "world_size": self.world_size,
            "optimizer": self.optimizer,
            "tables": tables,
            "rank_bytes": self.rank_bytes(),
        }

    def save(self, path: str | Path) -> None:
        """Write `as_dict()` to `path` as JSON."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(self.as_dict(), indent=2) + "\n")


def make_plan(
    tables: Sequence[EmbeddingTable],
    world_size: int,
    optimizer: Optimizer = "rowwise_adagrad",
    wanted: Mapping[str, str] | None = None,
) -> Plan:
    """Complete `wanted` (table name -> placement, see the module's docstring) with the balanced policy.

    >>> big, small = EmbeddingTable("user", 60_000_000, 16), EmbeddingTable("city", 500, 16)
    >>> dict(make_plan([big, small], world_size=2).placement)
    {'user': 'row_wise', 'city': 'table_wise:0'}

    Raises:
        ShardingError: `wanted` names a table that there is not, or a placement that cannot work.
    """
    wanted = {name: kind for name, kind in (wanted or {}).items() if kind != "auto"}
    by_name = {t.name: t for t in tables}
    if unknown := sorted(wanted.keys() - by_name.keys()):
        raise ShardingError(f"the plan names tables that the model does not have: {unknown}; it has {sorted(by_name)}")
    for name, kind in wanted.items():
        _check_placement(by_name[name], kind, world_size, optimizer)

    placement = {name: kind for name, kind in wanted.items() if kind != "table_wise"}
    for t in tables:
        large = world_size > 1 and t.rows * t.row_bytes >= ROW_WISE_BYTES
        if t.name not in wanted and large and not _leaves_a_rank_empty(t.rows, world_size):
            placement[t.name] = "row_wise"
    placed = [t for t in tables if t.name in placement]
    load = Plan(tuple(placed), placement, world_size, optimizer).rank_bytes()
    whole = [t for t in tables if t.name not in placement]
    for t in sorted(whole, key=lambda t: (-t.rows * (t.row_bytes + t.state_row_bytes(optimizer)), t.name)):
        rank = min(range(world_size), key=load.__getitem__)
        placement[t.name] = f"table_wise:{rank}"
        load[rank] += t.rows * (t.row_bytes + t.state_row_bytes(optimizer))
    return Plan(tuple(tables), {t.name: placement[t.name] for t in tables}, world_size, optimizer)


def _check_placement(table: EmbeddingTable, wanted: str, world_size: int, optimizer: Optimizer) -> None:
    kind, colon, rank = wanted.partition(":")
    where = f"plan[{table.name!r}] = {wanted!r}"
    if kind not in KINDS or (colon and kind != "table_wise"):
        raise ShardingError(f"{where}: use 'row_wise', 'table_wise', 'table_wise:<rank>', 'column_wise' or 'auto'")
    if kind == "table_wise" and colon and not (rank.isdigit() and int(rank) < world_size):
        raise ShardingError(f"{where}: with world size {world_size} the rank must be 0 to {world_size - 1}")
    if kind == "data_parallel":
        raise ShardingError(
            f"{where}: a replicated table has no fused optimizer (and corrupts memory in an EmbeddingCollection on the "
            "CPU); use 'table_wise', or an nn.Embedding, which is replicated and trained by the module's optimizer"
        )
    if kind == "row_wise" and _leaves_a_rank_empty(table.rows, world_size):
        raise ShardingError(
            f"{where}: {table.rows} rows in runs of {math.ceil(table.rows / world_size)} leave some of {world_size} "
            "ranks without a row, which the kernels cannot take; use 'table_wise'"
        )
    if kind == "column_wise" and optimizer == "rowwise_adagrad":
        raise ShardingError(
            f"{where}: row-wise AdaGrad takes the mean over a row's values, and each column shard would take its own; "
            "use 'row_wise', or table_optimizer: adagrad"
        )
    if kind == "column_wise" and table.dim % (4 * world_size):
        raise ShardingError(
            f"{where}: {table.dim} columns over {world_size} ranks are no runs of a multiple of 4, which the kernels "
            "need; use 'row_wise'"
        )


def _leaves_a_rank_empty(rows: int, world_size: int) -> bool:
    return math.ceil(rows / world_size) * (world_size - 1) >= rows


def torchrec_placement(module: nn.Module, world_size: int, local_size: int, device: torch.device) -> dict[str, str]:
    """What TorchRec's planner chooses for every table of `module`, in the words of this module."""
    topology = Topology(world_size=world_size, local_world_size=local_size, compute_device=device.type)
    chosen = EmbeddingShardingPlanner(topology=topology).plan(module, sharders({}))
    placement = {}
    for module_plan in chosen.plan.values():
        for name, sharding in module_plan.items():
            whole = sharding.sharding_type == ShardingType.TABLE_WISE.value
            placement[name] = f"table_wise:{sharding.ranks[0]}" if whole else sharding.sharding_type
    tiny = {table.name for table in find_tables(module) if _leaves_a_rank_empty(table.rows, world_size)}
    return {name: "table_wise" if kind == "row_wise" and name in tiny else kind for name, kind in placement.items()}


def torchrec_plan(module: nn.Module, plan: Plan, local_size: int, device: torch.device) -> ShardingPlan:
    """`plan` in TorchRec's own terms, for `DistributedModelParallel`."""
    makers = {
        "row_wise": lambda _: row_wise(compute_kernel="fused"),
        "table_wise": lambda rank: table_wise(rank=int(rank), compute_kernel="fused"),
        "column_wise": lambda _: column_wise(ranks=list(range(plan.world_size)), compute_kernel="fused"),
    }
    by_type = {sharder.module_type: sharder for sharder in sharders({})}
    result = {}
    for path, collection, child in collections(module):
        parts = {name: plan.placement[name].partition(":") for name in getattr(collection, child)}
        result[path] = construct_module_sharding_plan(
            collection,
            {name: makers[kind](rank) for name, (kind, _, rank) in parts.items()},
            sharder=by_type[type(collection)],
            local_size=local_size,
            world_size=plan.world_size,
            device_type=device.type,
        )
    return ShardingPlan(plan=result)


def module_plan(
    module: nn.Module,
    world_size: int,
    local_size: int,
    device: torch.device,
    optimizer: Optimizer,
    wanted: Mapping[str, str] | None,
    automatic: Automatic,
) -> Plan:
    """The plan for `module` on this world; the same on every rank, since it depends on nothing else."""
    tables = find_tables(module)
    chosen = dict(wanted or {})
    if automatic == "torchrec":
        chosen = torchrec_placement(module, world_size, local_size, device) | chosen
    return make_plan(tables, world_size, optimizer, chosen)

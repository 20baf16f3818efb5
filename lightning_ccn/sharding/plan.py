"""Plans: which rank holds which rows of each table, chosen by the user or automatically, and the bytes per rank.

A plan maps a table's name to one of

- `row_wise`: the rows are split into equal blocks, one per rank;
- `table_wise:2`: the whole table is on rank 2 (`table_wise` alone: on the rank with the fewest bytes so far);
- `column_wise`: the columns are split into equal blocks, one per rank.

With `+uvm` behind it (`row_wise+uvm`, `table_wise:2+uvm`) a table larger than the GPUs stays in the memory of their
hosts, and each GPU keeps a cache of a fifth of the rows (`fused_uvm_caching` in TorchRec's words). It needs GPUs.

Tables without an entry, or with the entry `auto`, are placed by `automatic`:

- `balanced` (the default): tables of at least `ROW_WISE_BYTES` are split by rows. The others stay whole: from the
  largest to the smallest, each goes to the rank with the fewest bytes. The plan depends on sizes only, so it is the
  same on every machine, and no rank holds more than its share of a large table.
- `torchrec`: TorchRec's `EmbeddingShardingPlanner`, which minimizes the estimated time. The estimate assumes batch
  sizes (`planner_batch`), pooling factors and the bandwidths of large GPUs, and means little for CPUs, so it is not
  the default. It knows the GPU's memory, and may choose `+uvm`.
  (On a CPU, TorchRec's own sharders do not offer the planner row-wise bags, although they work; ours do.)
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.table_optimizers import TABLE_OPTIMIZERS, find_table_optimizer
from lightning_ccn.sharding.tables import EmbeddingTable

ROW_WISE_BYTES = 64 * 2**20
GIB = 2**30
Automatic = Literal["balanced", "torchrec"]
UVM = "+uvm"
UVM_CACHE = 0.2  # fbgemm's default: the share of the rows of a table in host memory that the GPU caches
KINDS = ("row_wise", "table_wise", "column_wise", "data_parallel")


@dataclass(frozen=True)
class Plan:
    """A complete plan.

    Attributes:
        tables: All tables.
        placement: Placement of each table, by name; `table_wise` always with its rank.
        world_size: Number of ranks.
        optimizer: Name of the table optimizer, whose state counts in the bytes.
    """

    tables: tuple[EmbeddingTable, ...]
    placement: Mapping[str, str]
    world_size: int
    optimizer: str

    def shards(self, table: EmbeddingTable) -> list[tuple[int, int, int]]:
        """(rank, rows, columns) of every shard of `table`."""
        kind, rank, _ = split_placement(self.placement[table.name])
        if kind == "table_wise":
            return [(int(rank), table.rows, table.dim)]
        if kind == "column_wise":
            return [(r, table.rows, table.dim // self.world_size) for r in range(self.world_size)]
        block = math.ceil(table.rows / self.world_size)  # as TorchRec splits: the last rank gets the remainder
        return [(r, min(block, table.rows - r * block), table.dim) for r in range(self.world_size)]

    def rank_bytes(self) -> list[int]:
        """Bytes of weights and optimizer state on each rank's device; of a table in host memory, of its cache."""
        total = [0] * self.world_size
        for table in self.tables:
            row_bytes = self._row_bytes(table)
            if in_host_memory(self.placement[table.name]):
                row_bytes = math.ceil(table.row_bytes * UVM_CACHE)
            for rank, rows, columns in self.shards(table):
                total[rank] += rows * row_bytes * columns // table.dim
        return total

    def host_bytes(self) -> list[int]:
        """Bytes of each rank's tables in host memory."""
        total = [0] * self.world_size
        for table in self.tables:
            if in_host_memory(self.placement[table.name]):
                for rank, rows, columns in self.shards(table):
                    total[rank] += rows * self._row_bytes(table) * columns // table.dim
        return total

    def _row_bytes(self, table: EmbeddingTable) -> int:
        return table.row_bytes + find_table_optimizer(self.optimizer).state_row_bytes(table.dim)

    def __str__(self) -> str:
        """One line per table, then the total and the fullest rank."""
        head = ("table", "rows", "dim", "dtype", "kernel", "placement", "shards", "weights", "state", "GiB per rank")
        lines: list[tuple[str, ...]] = [head]
        optimizer = find_table_optimizer(self.optimizer)
        for t in sorted(self.tables, key=lambda t: -t.rows * t.row_bytes):
            shards = self.shards(t)
            weights, state = t.rows * t.row_bytes, t.rows * optimizer.state_row_bytes(t.dim)
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
        if host := max(self.host_bytes()):
            text.append(f"up to {host / GIB:.3f} GiB of host memory per rank for tables with +uvm")
        return "\n".join(line.rstrip() for line in text)

    def as_dict(self) -> dict[str, Any]:
        """The plan in JSON types: world size, optimizer, the placement of each table, and the bytes on each rank."""
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
    optimizer: str = "rowwise_adagrad",
    wanted: Mapping[str, str] | None = None,
) -> Plan:
    """Complete `wanted` (table name -> placement, see the top of this file) with the `balanced` policy.

    >>> big, small = EmbeddingTable("user", 60_000_000, 16), EmbeddingTable("city", 500, 16)
    >>> dict(make_plan([big, small], world_size=2).placement)
    {'user': 'row_wise', 'city': 'table_wise:0'}

    Raises:
        ShardingError: `wanted` names an unknown table or a placement that does not work.
    """
    wanted = {name: kind for name, kind in (wanted or {}).items() if kind != "auto"}
    by_name = {t.name: t for t in tables}
    if unknown := sorted(wanted.keys() - by_name.keys()):
        raise ShardingError(f"the plan names tables that the model does not have: {unknown}; it has {sorted(by_name)}")
    for name, kind in wanted.items():
        _check_placement(by_name[name], kind, world_size, optimizer)

    placement = {name: kind for name, kind in wanted.items() if kind.removesuffix(UVM) != "table_wise"}
    for t in tables:
        large = world_size > 1 and t.rows * t.row_bytes >= ROW_WISE_BYTES
        if t.name not in wanted and large and not leaves_a_rank_empty(t.rows, world_size):
            placement[t.name] = "row_wise"
    placed = [t for t in tables if t.name in placement]
    load = Plan(tuple(placed), placement, world_size, optimizer).rank_bytes()
    state = find_table_optimizer(optimizer)
    whole = {t.name: t.rows * (t.row_bytes + state.state_row_bytes(t.dim)) for t in tables if t.name not in placement}
    for name, size in sorted(whole.items(), key=lambda item: (-item[1], item[0])):
        rank = min(range(world_size), key=load.__getitem__)
        placement[name] = f"table_wise:{rank}" + (UVM if in_host_memory(wanted.get(name, "")) else "")
        load[rank] += size
    return Plan(tuple(tables), {t.name: placement[t.name] for t in tables}, world_size, optimizer)


def split_placement(placement: str) -> tuple[str, str, bool]:
    """A placement's kind, its rank as text, and whether the table is in host memory.

    >>> split_placement("table_wise:2+uvm")
    ('table_wise', '2', True)
    """
    place = placement.removesuffix(UVM)
    kind, _, rank = place.partition(":")
    return kind, rank, in_host_memory(placement)


def in_host_memory(placement: str) -> bool:
    """Whether a placement keeps its table in host memory."""
    return placement.endswith(UVM)


def refuse_uvm(placement: Mapping[str, str], device_type: str) -> None:
    """Refuse tables in host memory where there is no GPU to cache them.

    Raises:
        ShardingError: A table has such a placement, and `device_type` is not `cuda`.
    """
    for name, kind in placement.items():
        if device_type != "cuda" and in_host_memory(kind):
            raise ShardingError(
                f"plan[{name!r}] = {kind!r}: {UVM} keeps a table in host memory for a GPU, and the ranks are on "
                f"{device_type}; use {kind.removesuffix(UVM)!r}"
            )


def _check_placement(table: EmbeddingTable, wanted: str, world_size: int, optimizer: str) -> None:
    kind, colon, rank = wanted.removesuffix(UVM).partition(":")
    where = f"plan[{table.name!r}] = {wanted!r}"
    if kind not in KINDS or (colon and kind != "table_wise"):
        raise ShardingError(
            f"{where}: use 'row_wise', 'table_wise', 'table_wise:<rank>' or 'column_wise' (each also with '{UVM}'), or "
            "'auto'"
        )
    if kind == "table_wise" and colon and not (rank.isdigit() and int(rank) < world_size):
        raise ShardingError(f"{where}: with world size {world_size} the rank must be 0 to {world_size - 1}")
    if kind == "data_parallel":
        raise ShardingError(
            f"{where}: a replicated table has no fused optimizer (and corrupts memory in an EmbeddingCollection on the "
            "CPU); use 'table_wise', or an nn.Embedding, which is replicated and trained by the module's optimizer"
        )
    if kind == "row_wise" and leaves_a_rank_empty(table.rows, world_size):
        raise ShardingError(
            f"{where}: {table.rows} rows in blocks of {math.ceil(table.rows / world_size)} leave some of {world_size} "
            "ranks without a row, which the kernels do not support; use 'table_wise'"
        )
    if kind == "column_wise" and (reason := find_table_optimizer(optimizer).column_wise_refusal):
        others = " or ".join(name for name, other in TABLE_OPTIMIZERS.items() if not other.column_wise_refusal)
        raise ShardingError(f"{where}: {reason}; use 'row_wise', or table_optimizer {others}")
    if kind == "column_wise" and table.dim % (4 * world_size):
        raise ShardingError(
            f"{where}: {table.dim} columns over {world_size} ranks do not give blocks of a multiple of 4 columns, as "
            "the kernels need; use 'row_wise'"
        )


def leaves_a_rank_empty(rows: int, world_size: int) -> bool:
    """Whether the rows, in equal blocks, leave a rank without one."""
    return math.ceil(rows / world_size) * (world_size - 1) >= rows

"""Bytes that ranks exchange in a training step, by table and direction. Needs no process group and no GPU.

For a table with vectors of V bytes (dim x 4, or x 2 with `communication_dtype` fp16 or bf16) on W ranks, a rank whose
batch looks up I ids (of A bytes) in B bags (each with a length of L bytes; an unpooled lookup counts a bag for each
entry of its features) sends to the other ranks

| placement | ids out | vectors back, pooled | vectors back, unpooled |
|---|---|---|---|
| `row_wise` | A I (1 - s) + L B (W - 1) | V B (W - 1) | V I s (W - 1) |
| `column_wise` | (A I + L B) (W - 1) | V B (W - 1) / W | V I (W - 1) / W |
| `table_wise`, the owner | 0 | V B (W - 1) | V I (W - 1) |
| `table_wise`, every other rank | A I + L B | 0 | 0 |

Here s is the share of the ids that are in the rank's own block of rows: 1 / W if popular ids are spread evenly. The
gradients go the way of the vectors in the other direction. In words: a pooled lookup of a table that is split by
rows costs every rank a vector for every bag from every other rank, which is what makes `sequence` better on many GPUs.
The layers' gradients are averaged with an all-reduce, which sends 2 (W - 1) / W of their bytes. All ranks' batches are
taken to be alike. What a rank tells the others about sizes, some numbers a collection, is not counted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_ccn.sharding.plan import Plan, split_placement
from lightning_ccn.sharding.tables import EmbeddingTable

MIB = 2**20
DIRECTIONS = ("ids out", "vectors back", "gradients")
Bytes = list[float]  # by rank


@dataclass(frozen=True)
class Lookup:
    """What a rank's batch looks up in one table.

    Attributes:
        ids: Number of ids.
        bags: Number of bags: entries of the batch times features of the table.
        id_bytes: Bytes of an id.
        length_bytes: Bytes of a bag's length.
        rows: Int [ids], the ids; None: they are spread evenly over the rows of the table.
    """

    ids: int
    bags: int
    id_bytes: int = 8
    length_bytes: int = 8
    rows: Tensor | None = field(default=None, compare=False, repr=False)

    def shares(self, table_rows: int, ranks: int) -> list[float]:
        """The share of the ids in each rank's block of rows, if the table is split by rows."""
        if self.rows is None or not self.ids:
            return [1 / ranks] * ranks
        block = math.ceil(table_rows / ranks)
        counts: list[int] = torch.bincount(self.rows // block, minlength=ranks).tolist()
        return [count / self.ids for count in counts]


@dataclass(frozen=True)
class StepTraffic:
    """Bytes that each rank sends and receives in a step.

    Attributes:
        plan: The plan.
        sent: Table -> direction -> bytes that each rank sends to others.
        received: Table -> direction -> bytes that each rank receives from others.
        layers: Bytes that each rank sends, and receives, for the layers' gradients.
    """

    plan: Plan
    sent: Mapping[str, Mapping[str, Bytes]]
    received: Mapping[str, Mapping[str, Bytes]]
    layers: float

    def mean(self, table: str, direction: str) -> float:
        """Bytes that a rank sends, on average over the ranks."""
        return sum(self.sent[table][direction]) / self.plan.world_size

    def of_rank(self, rank: int) -> tuple[float, float]:
        """Bytes that a rank (sends, receives), for all tables and the layers."""
        out, into = (
            sum(by_rank[rank] for table in side.values() for by_rank in table.values()) + self.layers
            for side in (self.sent, self.received)
        )
        return out, into

    @property
    def busiest(self) -> tuple[int, str, float]:
        """(rank, `sends` or `receives`, bytes) of the link with the most to do."""
        links = [
            (rank, way, size)
            for rank in range(self.plan.world_size)
            for way, size in zip(("sends", "receives"), self.of_rank(rank), strict=True)
        ]
        return max(links, key=lambda link: link[2])

    def __str__(self) -> str:
        """One line per table with the bytes that a rank sends on average, then the busiest link."""
        lines = [("table", "placement", *(f"{direction}, MiB" for direction in DIRECTIONS))]
        for table in self.sent:
            sizes = [f"{self.mean(table, direction) / MIB:.3f}" for direction in DIRECTIONS]
            lines.append((table, self.plan.placement[table], *sizes))
        widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        rank, way, size = self.busiest
        layers = f"layers' gradients {self.layers / MIB:.3f} MiB"
        text.append(f"{layers}; busiest link: rank {rank} {way} {size / MIB:.3f} MiB")
        return "\n".join(line.rstrip() for line in text)


def traffic(plan: Plan, lookups: Mapping[str, Lookup], layer_bytes: float = 0, value_bytes: int = 4) -> StepTraffic:
    """What the ranks exchange in a step with such a batch on every rank; the formulas are at the top of this file.

    Args:
        plan: The plan.
        lookups: What a rank's batch looks up, by table; tables without an entry are not looked up.
        layer_bytes: Bytes of the layers' gradients.
        value_bytes: Bytes of a value of a vector on its way.
    """
    ranks = plan.world_size
    sent: dict[str, dict[str, Bytes]] = {}
    received: dict[str, dict[str, Bytes]] = {}
    for table in plan.tables:
        if table.name in lookups:
            ids, back = _of_table(table, plan, lookups[table.name], value_bytes)
            sent[table.name] = dict(zip(DIRECTIONS, (ids[0], back[0], back[1]), strict=True))
            received[table.name] = dict(zip(DIRECTIONS, (ids[1], back[1], back[0]), strict=True))
    return StepTraffic(plan, sent, received, 2 * layer_bytes * (ranks - 1) / ranks)


def _of_table(
    table: EmbeddingTable, plan: Plan, lookup: Lookup, value_bytes: int
) -> tuple[tuple[Bytes, Bytes], tuple[Bytes, Bytes]]:
    """(bytes sent, bytes received) by rank, of the ids and of the vectors."""
    kind, owner, _ = split_placement(plan.placement[table.name])
    ranks, others = plan.world_size, plan.world_size - 1
    pooled = table.kernel == "bag"
    ids, lengths = lookup.ids * lookup.id_bytes, lookup.bags * lookup.length_bytes
    vectors = (lookup.bags if pooled else lookup.ids) * table.dim * value_bytes
    if kind == "table_wise":
        own = [rank == int(owner) for rank in range(ranks)]
        to_owner = [0.0 if mine else float(ids + lengths) for mine in own]
        at_owner = [float(others * (ids + lengths)) if mine else 0.0 for mine in own]
        from_owner = [float(others * vectors) if mine else 0.0 for mine in own]
        at_others = [0.0 if mine else float(vectors) for mine in own]
        return (to_owner, at_owner), (from_owner, at_others)
    if kind == "row_wise":
        shares = lookup.shares(table.rows, ranks)
        ids_out = [ids * (1 - share) + lengths * others for share in shares]
        ids_in = [(ids * share + lengths) * others for share in shares]
        if pooled:
            return (ids_out, ids_in), ([float(vectors * others)] * ranks, [float(vectors * others)] * ranks)
        return (ids_out, ids_in), ([vectors * s * others for s in shares], [vectors * (1 - s) for s in shares])
    out, back = float((ids + lengths) * others), vectors * others / ranks
    return ([out] * ranks, [out] * ranks), ([back] * ranks, [back] * ranks)

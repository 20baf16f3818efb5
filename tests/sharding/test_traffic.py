"""Bytes that ranks exchange in a step: those of the plan are those that two ranks send."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_ccn.sharding import EmbeddingTable, TorchRecStrategy, find_tables, make_plan
from lightning_ccn.sharding.measure import measure
from lightning_ccn.sharding.traffic import Lookup, StepTraffic, traffic
from tests.sharding.dlrm import ITEMS, Batch, Loader, make_batch
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import make_model, make_trainer

RANKS = 2


class SameOnEveryRank(Loader):
    """The whole global batch on every rank."""

    def __iter__(self) -> Iterator[Batch]:
        for step in range(self.steps):
            yield make_batch(step)


@dataclass
class Exchange:
    """One all-to-all, as this rank saw it: whether it has floats, and bytes in all and for other ranks."""

    is_float: bool
    whole: int
    for_others: int


def exchanges(folder: str, plan: dict[str, str]) -> list[Exchange]:
    """On one rank: every all-to-all of one step."""
    seen = []
    original = dist.all_to_all_single

    def counted(*args: Any, **settings: Any) -> Any:
        named = signature(original).bind(*args, **settings).arguments
        given: Tensor = named["input"]
        splits = named.get("input_split_sizes")
        own = splits[dist.get_rank()] if splits else len(given) // RANKS
        row = given.nbytes // max(len(given), 1)
        seen.append(Exchange(given.is_floating_point(), given.nbytes, (len(given) - own) * row))
        return original(*args, **settings)

    dist.all_to_all_single = counted
    try:
        make_trainer(folder, TorchRecStrategy(plan=plan)).fit(make_model(), SameOnEveryRank(1))
    finally:
        dist.all_to_all_single = original
    return seen


def plan_and_count(folder: Path, plan: dict[str, str]) -> tuple[StepTraffic, dict[str, Lookup], list[list[Exchange]]]:
    """The traffic that is planned for a step, its lookups, and what two ranks exchanged."""
    model, batch = make_model(), make_batch(0)
    lookups, _ = measure(model, lambda: model(batch))
    planned = traffic(make_plan(find_tables(model), RANKS, wanted=plan), lookups)
    return planned, lookups, on_ranks(RANKS, exchanges, folder=str(folder), plan=plan)


def test_the_bytes_of_whole_tables_are_those_that_each_rank_sends(tmp_path: Path) -> None:
    plan = {"city": "table_wise:0", "tag": "table_wise:1", "item": "table_wise:0"}
    planned, _, results = plan_and_count(tmp_path, plan)
    for rank, seen in enumerate(results):
        vectors = sum(t[way][rank] for t in planned.sent.values() for way in ("vectors back", "gradients"))
        assert sum(one.for_others for one in seen if one.is_float) == vectors > 0
        ids = sum(one.for_others for one in seen if not one.is_float)
        assert 0 <= ids - sum(t["ids out"][rank] for t in planned.sent.values()) <= 100  # with the sizes, a few numbers


def test_the_bytes_of_a_table_split_by_rows_are_those_that_each_rank_sends(tmp_path: Path) -> None:
    plan = {"city": "table_wise:0", "tag": "table_wise:0", "item": "row_wise"}
    planned, lookups, results = plan_and_count(tmp_path, plan)
    assert lookups["item"].shares(ITEMS, RANKS) != [0.5, 0.5]  # one rank has more to do
    for rank, seen in enumerate(results):
        vectors = sum(t[way][rank] for t in planned.sent.values() for way in ("vectors back", "gradients"))
        assert sum(one.for_others for one in seen if one.is_float) == pytest.approx(vectors) and vectors > 0
        ids = sum(one.for_others for one in seen if not one.is_float)
        assert 0 <= ids - sum(t["ids out"][rank] for t in planned.sent.values()) <= 100  # with the sizes, a few numbers


def test_the_busiest_link_is_that_of_the_rank_with_the_popular_rows() -> None:
    plan = make_plan([EmbeddingTable("item", 100, 8, kernel="sequence")], 4, wanted={"item": "row_wise"})
    rows = torch.tensor([50, 51, 52, 53, 54, 55, 0, 99])  # six of eight on rank 2
    planned = traffic(plan, {"item": Lookup(8, 8, rows=rows)})
    assert planned.of_rank(2) == (8 * 2 + 8 * 8 * 3 + 32 * 6 * 3 + 32 * 2, 3 * (8 * 6 + 8 * 8) + 32 * 2 + 32 * 6 * 3)
    assert planned.busiest == (2, "receives", planned.of_rank(2)[1])
    even = traffic(plan, {"item": Lookup(8, 8)})
    for way in ("ids out", "vectors back", "gradients"):
        assert planned.mean("item", way) == even.mean("item", way)
    for one in (planned, even):  # what is sent arrives
        of_ranks = [one.of_rank(rank) for rank in range(4)]
        assert sum(out for out, _ in of_ranks) == sum(into for _, into in of_ranks)


def test_a_pooled_lookup_of_rows_costs_a_vector_for_each_bag_from_every_rank() -> None:
    pooled, unpooled = (EmbeddingTable("item", 1_000_000, 16, kernel=kernel) for kernel in ("bag", "sequence"))
    sizes = []
    for table in (pooled, unpooled):
        planned = traffic(make_plan([table], 8, wanted={"item": "row_wise"}), {"item": Lookup(1000, 1000)})
        sizes.append(planned.mean("item", "vectors back"))
    assert sizes == [1000 * 64 * 7, 1000 * 64 * 7 / 8]


def test_the_busiest_link_is_that_of_the_rank_with_the_whole_tables() -> None:
    tables = [EmbeddingTable("a", 100, 8), EmbeddingTable("b", 100, 8)]
    plan = make_plan(tables, 4, wanted={"a": "table_wise:2", "b": "table_wise:2"})
    planned = traffic(plan, {"a": Lookup(10, 10), "b": Lookup(10, 10)}, layer_bytes=1000)
    a_rank = 2 * 10 * (8 + 8) + 2 * 10 * 32  # ids, lengths and gradients that each other rank sends to rank 2
    assert planned.busiest == (2, "receives", 3 * a_rank + 1500)
    assert planned.of_rank(0) == (a_rank + 1500, 2 * 10 * 32 + 1500)
    halved = traffic(plan, {"a": Lookup(10, 10)}, value_bytes=2)
    assert halved.mean("a", "gradients") == planned.mean("a", "gradients") / 2
    assert "busiest link: rank 2 receives 0.004 MiB" in str(planned)


def test_columns_send_every_id_to_every_rank() -> None:
    plan = make_plan([EmbeddingTable("a", 100, 16)], 2, "adagrad", {"a": "column_wise"})
    planned = traffic(plan, {"a": Lookup(10, 5)})
    assert planned.sent["a"] == {"ids out": [120, 120], "vectors back": [160, 160], "gradients": [160, 160]}


def test_what_layers_keep_for_the_backward_pass_is_counted_once() -> None:
    model, batch = make_model(), make_batch(0)
    lookups, kept = measure(model, lambda: model(batch))
    assert lookups["city"] == Lookup(12, 12) and lookups["item"].bags == 24
    layer, rows = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Sigmoid()), torch.zeros(100, 4)
    _, kept_by_layer = measure(model, lambda: layer(rows))
    assert kept_by_layer == 100 * (4 + 8) * 4
    assert kept > 12 * 35 * 4  # at least the input of the MLP
    assert model.item.forward.__self__ is model.item  # tables look up again

"""Plans, their text, and estimates of whether they fit into memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig
from torchrec.distributed.planner.types import PlannerError
from torchrec.modules.embedding_configs import DataType

from lightning_ccn.sharding import EmbeddingTable, ShardingError, find_tables, make_plan
from lightning_ccn.sharding.estimate import estimate
from lightning_ccn.sharding.plan import GIB
from lightning_ccn.sharding.torchrec_plan import module_plan, torchrec_placement, torchrec_plan
from tests.sharding.dlrm import META
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import make_model

USER = EmbeddingTable("user", 50_000_000, 16)
ITEM = EmbeddingTable("item", 9_000_000, 16, kernel="sequence")
CITY, SHOP, TAG = EmbeddingTable("city", 400, 16), EmbeddingTable("shop", 90_000, 16), EmbeddingTable("tag", 60_000, 16)
TABLES = [CITY, USER, SHOP, ITEM, TAG]


def test_large_tables_are_split_and_small_ones_spread_by_size() -> None:
    plan = make_plan(TABLES, world_size=2)
    assert plan.placement == {
        "city": "table_wise:1",
        "user": "row_wise",
        "shop": "table_wise:0",
        "item": "row_wise",
        "tag": "table_wise:1",
    }
    first, second = plan.rank_bytes()
    assert first + second == sum(t.rows * (t.row_bytes + 4) for t in TABLES)
    assert first / second == pytest.approx(1, abs=0.01)


def test_one_rank_holds_every_table_whole() -> None:
    assert set(make_plan(TABLES, world_size=1).placement.values()) == {"table_wise:0"}


def test_named_tables_are_placed_as_wanted_and_the_others_balance_the_ranks() -> None:
    wanted = {"user": "table_wise:0", "shop": "row_wise", "item": "auto", "tag": "table_wise"}
    plan = make_plan(TABLES, 2, wanted=wanted)
    assert plan.placement["user"] == "table_wise:0"
    assert plan.placement["shop"] == plan.placement["item"] == "row_wise"
    assert plan.placement["tag"] == plan.placement["city"] == "table_wise:1"


@pytest.mark.parametrize(("optimizer", "state_bytes"), [("rowwise_adagrad", 4), ("adagrad", 64), ("sgd", 0)])
def test_optimizer_state_counts(optimizer: str, state_bytes: int) -> None:
    plan = make_plan([CITY], 1, optimizer)
    assert plan.rank_bytes() == [400 * (64 + state_bytes)]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"itm": "row_wise"}, r"names tables that the model does not have: \['itm'\]; it has \['city', 'item'"),
        ({"item": "rowwise"}, "use 'row_wise', 'table_wise'"),
        ({"item": "row_wise:1"}, "use 'row_wise', 'table_wise'"),
        ({"item": "table_wise:2"}, "the rank must be 0 to 1"),
        ({"item": "table_wise:x"}, "the rank must be 0 to 1"),
        ({"item": "data_parallel"}, "use 'table_wise', or an nn.Embedding"),
        ({"item": "column_wise"}, "uses the mean over a row's values.*or table_optimizer adagrad or sgd"),
        ({"pair": "row_wise"}, "leave some of 2 ranks without a row"),
    ],
)
def test_an_unsupported_plan_is_rejected_with_an_explanation(wanted: dict[str, str], said: str) -> None:
    with pytest.raises(ShardingError, match=said):
        make_plan([*TABLES, EmbeddingTable("pair", 1, 16)], 2, wanted=wanted)


def test_a_table_in_host_memory_takes_a_cache_on_the_device() -> None:
    plan = make_plan([USER, CITY], 2, wanted={"user": "row_wise+uvm", "city": "table_wise+uvm"})
    assert plan.placement == {"user": "row_wise+uvm", "city": "table_wise:0+uvm"}
    assert plan.rank_bytes() == [25_000_000 * 13 + 400 * 13, 25_000_000 * 13]  # a fifth of 64 bytes a row, rounded up
    assert plan.host_bytes() == [25_000_000 * 68 + 400 * 68, 25_000_000 * 68]
    assert "up to 1.583 GiB of host memory per rank for tables with +uvm" in str(plan)
    assert "host memory" not in str(make_plan(TABLES, 2))


def test_columns_must_divide_into_fours() -> None:
    with pytest.raises(ShardingError, match="16 columns over 3 ranks"):
        make_plan(TABLES, 3, "adagrad", {"item": "column_wise"})


def test_a_printed_plan_has_a_line_per_table_and_the_fullest_rank(tmp_path: Path) -> None:
    plan = make_plan(TABLES, 2)
    lines = str(plan).splitlines()
    about, sizes = lines[1].split()[:7], lines[1].split()[7:]
    assert about == ["user", "50,000,000", "16", "float32", "bag", "row_wise", "2"]
    assert sizes == ["2.980", "0.186", "1.583"]  # weights, state, both on one rank
    assert len(lines) == len(TABLES) + 2
    assert "fullest rank 1.874 GiB" in lines[-1]
    plan.save(tmp_path / "deep" / "plan.json")
    saved = json.loads((tmp_path / "deep" / "plan.json").read_text())
    assert saved["tables"]["item"]["placement"] == "row_wise"
    assert saved["rank_bytes"] == plan.rank_bytes()


def test_an_estimate_finds_the_fewest_ranks() -> None:
    big = EmbeddingTable("user", 2_000_000_000, 64)
    answer = estimate([big, CITY], world_size=64, memory_gib=80)
    assert answer.fits
    assert answer.needed == 8
    assert max(answer.plan.rank_bytes()) == pytest.approx(2e9 * (256 + 4) / 64, rel=0.01)
    assert "it fits on 64 rank(s)" in str(answer)
    whole = estimate([big], world_size=2, memory_gib=80, plan={"user": "table_wise:1"})
    assert not whole.fits
    assert whole.needed is None
    assert "it does NOT fit" in str(whole)


def test_tables_are_found_once_and_by_distinct_names() -> None:
    model = make_model()
    model.alias = model.bags  # one collection under two names is one collection
    assert {t.name: t.kernel for t in find_tables(model)} == {"city": "bag", "tag": "bag", "item": "sequence"}
    config = EmbeddingBagConfig(name="item", num_embeddings=5, embedding_dim=8, feature_names=["x"])
    model.second = EmbeddingBagCollection(device=META, tables=[config])
    with pytest.raises(ShardingError, match=r"two tables are named 'item' \(in item and second\)"):
        find_tables(model)


def test_a_module_without_collections_and_a_subclass_are_rejected() -> None:
    class Mine(EmbeddingBagCollection):
        pass

    with pytest.raises(ShardingError, match="no EmbeddingBagCollection and no EmbeddingCollection"):
        find_tables(torch.nn.Linear(2, 2))
    config = EmbeddingBagConfig(name="a", num_embeddings=5, embedding_dim=8, feature_names=["x"])
    with pytest.raises(ShardingError, match="layer is a Mine"):
        find_tables(torch.nn.ModuleDict({"layer": Mine(device=META, tables=[config])}))


def test_tables_of_bf16_are_refused_and_those_of_fp16_are_not() -> None:
    assert {table.dtype for table in find_tables(make_model(data_type=DataType.FP16))} == {torch.float16}
    with pytest.raises(ShardingError, match=r"'city' has data_type BF16, .* cannot train: use DataType.FP16"):
        find_tables(make_model(data_type=DataType.BF16))


class Card:
    """What a GPU says about itself."""

    def __init__(self, gib: float) -> None:
        self.total_memory = int(gib * GIB)


@pytest.mark.parametrize(("gib", "ending"), [(80, ""), (3, "+uvm")])
def test_torchrecs_planner_knows_the_gpus_memory_and_its_kernel_is_kept(
    monkeypatch: pytest.MonkeyPatch, gib: float, ending: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: Card(gib))
    module, gpu = make_model(items=200_000_000), torch.device("cuda")
    placement = torchrec_placement(module, 2, 2, gpu)
    assert placement["item"].endswith("+uvm") == bool(ending)
    plan = module_plan(module, 2, 2, gpu, "rowwise_adagrad", None, "torchrec")
    sharding = torchrec_plan(module, plan, 2, gpu).plan["item"]["item"]
    assert sharding.compute_kernel == ("fused_uvm_caching" if ending else "fused")


def test_torchrecs_planner_gets_the_batch_and_says_when_it_finds_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    class Planner:
        def __init__(self, batch_size: int | None, **_: Any) -> None:
            given.append(batch_size)

        def plan(self, *_: Any) -> Any:
            raise PlannerError("no\nroom")

    monkeypatch.setattr("lightning_ccn.sharding.torchrec_plan.EmbeddingShardingPlanner", Planner)
    with pytest.raises(ShardingError, match=r"automatic is torchrec: its planner finds no plan: .*no room"):
        module_plan(make_model(), 2, 2, torch.device("cpu"), "rowwise_adagrad", None, "torchrec", 64)
    assert given == [64]


def planned(wanted: dict[str, str]) -> dict[str, str]:
    plan = module_plan(make_model(), 4, 4, torch.device("cpu"), "rowwise_adagrad", wanted, "torchrec")
    return dict(plan.placement)


def test_torchrecs_planner_places_what_is_not_named() -> None:
    (placement,) = on_ranks(1, planned, wanted={"item": "row_wise"})
    assert placement["item"] == "row_wise"
    assert all(kind.startswith("table_wise:") or kind == "row_wise" for kind in placement.values())
    assert placement.keys() == {"city", "tag", "item"}

"""Sharded training equals plain PyTorch for every world size, plan, kernel and table optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torchrec import PoolingType

from tests.sharding.dlrm import SOME_EMPTY, UNEQUAL
from tests.sharding.reference import Reference
from tests.sharding.runs import fitted, make_model

STEPS = 5
ROW = {"city": "row_wise", "tag": "row_wise", "item": "row_wise"}
TABLE = {"city": "table_wise", "tag": "table_wise", "item": "table_wise"}
MIXED = {"city": "table_wise:0", "tag": "row_wise", "item": "row_wise"}


def check(
    world_size: int,
    folder: Path,
    plan: dict[str, str],
    sizes: tuple[int, ...] = UNEQUAL,
    table_optimizer: str = "rowwise_adagrad",
    **model: Any,
) -> None:
    """Check that losses, tables, layers and both optimizers' state equal the reference up to 1e-5."""
    outcome = fitted(
        world_size,
        folder,
        steps=STEPS,
        sizes=sizes,
        model={"on_meta": False} | model,
        strategy={"plan": plan, "table_optimizer": table_optimizer},
    )
    reference = Reference(make_model(on_meta=False, **model), table_optimizer, table_lr=0.05)
    reference.train(STEPS, sizes)
    expected = {f"tables.{name}.weight": table.detach() for name, table in reference.tables.items()}
    if table_optimizer != "sgd":
        expected |= {f"tables.{name}.optimizer.momentum1": s for name, s in reference.state.items()}
    for name, parameter in reference.dense.named_parameters():
        expected[f"module.dense.{name}"] = parameter.detach()
        expected[f"optimizer.dense.{name}.sum"] = reference.optimizer.state[parameter]["sum"]
    torch.testing.assert_close(outcome.losses, reference.losses, rtol=0, atol=1e-5)
    assert expected.keys() == {key for key in outcome.state if not key.endswith(".step")}
    for key, value in expected.items():
        difference = (outcome.state[key] - value).abs().max().item()
        assert difference <= 1e-5, f"{key} differs by {difference}"


@pytest.mark.parametrize("kernel", ["sequence", "bag"])
@pytest.mark.parametrize("plan", [ROW, TABLE, MIXED], ids=["row", "table", "mixed"])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_rowwise_adagrad_equals_plain_pytorch(
    tmp_path: Path, world_size: int, plan: dict[str, str], kernel: str
) -> None:
    check(world_size, tmp_path, plan, item_kernel=kernel, warmup=3)


@pytest.mark.parametrize("kernel", ["sequence", "bag"])
@pytest.mark.parametrize("plan", [ROW, TABLE, MIXED], ids=["row", "table", "mixed"])
def test_ranks_without_a_row_in_a_batch_change_nothing(tmp_path: Path, plan: dict[str, str], kernel: str) -> None:
    check(3, tmp_path, plan, sizes=SOME_EMPTY, item_kernel=kernel, tag_pooling=PoolingType.SUM)


@pytest.mark.parametrize("kernel", ["sequence", "bag"])
@pytest.mark.parametrize(
    ("optimizer", "plan"),
    [("adagrad", MIXED), ("sgd", MIXED), ("adagrad", dict.fromkeys(ROW, "column_wise"))],
    ids=["adagrad", "sgd", "adagrad-columns"],
)
def test_other_table_optimizers_equal_plain_pytorch(
    tmp_path: Path, optimizer: str, plan: dict[str, str], kernel: str
) -> None:
    check(2, tmp_path, plan, table_optimizer=optimizer, item_kernel=kernel)


def test_tables_built_on_meta_start_with_the_same_rows_for_any_world_size(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 1, "trainer": {"limit_train_batches": 0}}
    one = fitted(1, tmp_path, **settings, strategy={"plan": TABLE}).state
    three = fitted(3, tmp_path, **settings, strategy={"plan": ROW}).state
    assert all(torch.equal(one[key], three[key]) for key in one if key.startswith(("tables.", "module.")))
    item = one["tables.item.weight"]
    assert len(item.unique(dim=0)) == len(item)  # ranks with the same seed would have equal rows

"""A table optimizer that is registered in `TABLE_OPTIMIZERS` works everywhere; nothing else needs to know its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_training import CounterBasedRegularizationDefinition, WeightDecayMode

from lightning_ccn.sharding import TABLE_OPTIMIZERS, EmbeddingTable, ShardingError, TableOptimizer, make_plan
from lightning_ccn.sharding.estimate import estimate
from lightning_ccn.sharding.table_optimizers import find_table_optimizer
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import Outcome, fit, fitted, put_together

OWN = TableOptimizer(
    name="own",
    kernel=EmbOptimType.EXACT_ADAGRAD,
    state={"momentum1": "weight"},
    column_wise_refusal="not in this test",
    fused_params={"gradient_clipping": True, "max_gradient": 0.01},
)


COUNTED = TableOptimizer(  # several states
    name="counted",
    kernel=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    state={"momentum1": "row", "prev_iter": "row", "row_counter": "row"},
    fused_params={
        "weight_decay_mode": WeightDecayMode.COUNTER,
        "counter_based_regularization": CounterBasedRegularizationDefinition(),
    },
)


@contextmanager
def registered(optimizer: TableOptimizer) -> Iterator[None]:
    """Within the context, `optimizer` is in the registry."""
    TABLE_OPTIMIZERS[optimizer.name] = optimizer
    try:
        yield
    finally:
        del TABLE_OPTIMIZERS[optimizer.name]


def fit_with_own(**settings: Any) -> dict[str, Any]:
    """On one rank: `fit` with the optimizer of this test."""
    with registered(OWN):
        return fit(**settings, strategy={"table_optimizer": "own", "plan": {"item": "row_wise", "tag": "row_wise"}})


def fitted_with_own(folder: Path, **settings: Any) -> Outcome:
    """The assembled result of `fit_with_own` on two ranks."""
    return put_together(on_ranks(2, fit_with_own, folder=str(folder), **settings))


def test_a_registered_optimizer_trains_saves_and_resumes(tmp_path: Path) -> None:
    whole = fitted_with_own(tmp_path / "whole", steps=4, trainer={"max_epochs": 2})
    fitted_with_own(tmp_path, steps=4, trainer={"max_epochs": 2, "save_every": 3}, crash_after=3)
    rest = fitted_with_own(tmp_path, steps=4, trainer={"max_epochs": 2}, ckpt_path=str(tmp_path / "step=3.ckpt"))
    assert rest.losses == whole.losses[3:]
    assert all(torch.equal(rest.state[key], value) for key, value in whole.state.items())
    assert whole.state["tables.item.optimizer.momentum1"].shape == (101, 8)
    adagrad = fitted(2, tmp_path, steps=4, strategy={"table_optimizer": "adagrad"}, trainer={"max_epochs": 2})
    own, usual = (outcome.state["tables.item.optimizer.momentum1"].max() for outcome in (whole, adagrad))
    assert own < usual  # the kernel has received max_gradient


def test_plans_and_estimates_count_the_state_of_a_registered_optimizer() -> None:
    table = EmbeddingTable("city", rows=400, dim=16)
    with registered(OWN):
        assert make_plan([table], 1, "own").rank_bytes() == [400 * (64 + 64)]
        assert estimate([table], 1, memory_gib=1, optimizer="own").fits
        with pytest.raises(ShardingError, match="not in this test; use 'row_wise', or table_optimizer adagrad or sgd"):
            make_plan([table], 2, "own", {"city": "column_wise"})


def test_an_unknown_optimizer_is_rejected_with_the_known_names() -> None:
    with pytest.raises(ShardingError, match="table_optimizer='own': use one of rowwise_adagrad, adagrad, sgd"):
        find_table_optimizer("own")


@pytest.mark.parametrize(
    ("name", "shapes", "row_bytes", "accumulator"),
    [
        ("rowwise_adagrad", {"momentum1": (5,)}, 4, "momentum1"),
        ("adagrad", {"momentum1": (5, 8)}, 32, "momentum1"),
        ("sgd", {}, 0, None),
    ],
)
def test_the_state_of_the_optimizers(
    name: str, shapes: dict[str, tuple[int, ...]], row_bytes: int, accumulator: str | None
) -> None:
    optimizer = find_table_optimizer(name)
    assert optimizer.state_shapes(rows=5, dim=8) == shapes
    assert optimizer.state_row_bytes(dim=8) == row_bytes
    assert optimizer.accumulator == accumulator


def fit_with_counted(**settings: Any) -> dict[str, Any]:
    """On one rank: `fit` with an optimizer that keeps several states."""
    with registered(COUNTED):
        return fit(**settings, strategy={"table_optimizer": "counted", "plan": {"item": "row_wise"}})


def test_several_states_load_on_another_number_of_ranks(tmp_path: Path) -> None:
    settings = {"folder": str(tmp_path), "steps": 4}
    saved = put_together(on_ranks(2, fit_with_counted, **settings, trainer={"save_every": 4})).state
    load_only = {"trainer": {"max_epochs": 2, "limit_train_batches": 0}, "ckpt_path": str(tmp_path / "step=4.ckpt")}
    loaded = put_together(on_ranks(1, fit_with_counted, **settings, **load_only)).state
    tables = {key for key in saved if key.startswith("tables.")}
    assert {key for key in tables if ".item." in key} == {
        "tables.item.weight",
        *(f"tables.item.optimizer.{state}" for state in COUNTED.state),
    }
    assert all(torch.equal(loaded[key], saved[key]) for key in tables)


@pytest.mark.parametrize("name", TABLE_OPTIMIZERS)
def test_an_entry_describes_the_state_that_its_kernel_keeps(tmp_path: Path, name: str) -> None:
    state = fitted(1, tmp_path, steps=1, strategy={"table_optimizer": name}).state
    kept = {key: tuple(value.shape) for key, value in state.items() if key.startswith("tables.item.optimizer.")}
    expected = find_table_optimizer(name).state_shapes(rows=101, dim=8)
    assert kept == {f"tables.item.optimizer.{name}": shape for name, shape in expected.items()}

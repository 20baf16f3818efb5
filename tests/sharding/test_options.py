"""Options of the strategy: the check of ids, the type in which vectors travel, and what needs a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from lightning_ccn.sharding import ShardingError, TorchRecStrategy
from lightning_ccn.sharding.checks import check_device
from tests.sharding.dlrm import ITEMS, Loader, WithId
from tests.sharding.ranks import on_ranks
from tests.sharding.runs import fitted, make_model, make_trainer, refusal


def fit_with_id(folder: str, wrong: int, kernel: str = "bag", **strategy: Any) -> list[float] | str:
    """On one rank: the losses of a fit on batches with such an id, or the ShardingError."""
    model = make_model(item_kernel=kernel)
    trainer = make_trainer(folder, TorchRecStrategy(**strategy))
    try:
        trainer.fit(model, WithId(2, wrong))
    except ShardingError as error:
        return str(error)
    return model.losses


@pytest.mark.parametrize("wrong", [ITEMS, ITEMS + 1, 2**40, -1, -2])
@pytest.mark.parametrize("kernel", ["bag", "sequence"])
@pytest.mark.parametrize(("ranks", "place"), [(1, "table_wise"), (2, "row_wise")])
def test_an_id_outside_of_its_table_is_one_clear_error(
    tmp_path: Path, wrong: int, kernel: str, ranks: int, place: str
) -> None:
    for said in on_ranks(ranks, fit_with_id, folder=str(tmp_path), wrong=wrong, kernel=kernel, plan={"item": place}):
        feature = "ids" if kernel == "bag" else "target"
        assert said.startswith(
            f"feature {feature!r} has the id {wrong} (1 such ids in this batch), and its table 'item'"
        )
        assert f"has rows 0 to {ITEMS - 1}" in said and "trainer.strategy.bounds_check" in said


@pytest.mark.parametrize("mode", ["warning", "ignore"])
def test_on_request_an_id_outside_of_its_table_is_row_0(tmp_path: Path, mode: str) -> None:
    (other,) = on_ranks(1, fit_with_id, folder=str(tmp_path), wrong=ITEMS, bounds_check=mode)
    (first,) = on_ranks(1, fit_with_id, folder=str(tmp_path), wrong=0)
    assert other == first


@pytest.mark.parametrize("plan", ["row_wise", "table_wise"])
@pytest.mark.parametrize("kernel", ["bag", "sequence"])
def test_vectors_that_travel_as_fp16_change_the_numbers_by_their_rounding(
    tmp_path: Path, plan: str, kernel: str
) -> None:
    settings: dict[str, Any] = {"model": {"item_kernel": kernel}, "steps": 4}
    tables = dict.fromkeys(("item", "tag"), plan)
    exact = fitted(2, tmp_path / "a", **settings, strategy={"plan": tables})
    rounded = fitted(2, tmp_path / "b", **settings, strategy={"plan": tables, "communication_dtype": "fp16"})
    assert rounded.losses != exact.losses
    torch.testing.assert_close(rounded.losses, exact.losses, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"communication_dtype": "bf16"}, "trainer.strategy.communication_dtype is bf16: gloo, which connects CPUs"),
        ({"tf32": True}, "trainer.strategy.tf32 is true: only GPUs compute in TF32"),
        (
            {"plan": {"item": "row_wise+uvm"}},
            "plan['item'] = 'row_wise+uvm': +uvm keeps a table in host memory for a GPU, and the ranks are on cpu",
        ),
    ],
)
def test_what_needs_a_gpu_is_refused_on_a_cpu(tmp_path: Path, strategy: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, strategy=strategy)


def test_what_needs_a_gpu_is_accepted_there() -> None:
    check_device("cuda", "bf16", tf32=True)


def precision_after_a_fit(folder: str, **strategy: Any) -> str:
    """How torch computes matrix products in float32 after a fit on the CPU, which is taken for a GPU."""
    before = torch.get_float32_matmul_precision()
    try:
        with patch("lightning_ccn.sharding.strategy.check_device"):
            make_trainer(folder, TorchRecStrategy(**strategy)).fit(make_model(), Loader(1))
        return torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)


def test_matrix_products_are_computed_in_tf32_on_request_only(tmp_path: Path) -> None:
    assert on_ranks(1, precision_after_a_fit, folder=str(tmp_path)) == ["highest"]
    assert on_ranks(1, precision_after_a_fit, folder=str(tmp_path), tf32=True) == ["high"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"bounds_check": "none"}, "trainer.strategy.bounds_check is 'none': choose one of fatal, warning, ignore"),
        ({"communication_dtype": "fp8"}, "communication_dtype is 'fp8': choose one of fp32, fp16, bf16"),
        ({"planner_batch": 64}, "trainer.strategy.planner_batch is 64: only TorchRec's planner uses it"),
        ({"planner_batch": 0, "automatic": "torchrec"}, "a rank's batch has at least 1 row"),
    ],
)
def test_an_option_that_cannot_work_is_refused_when_the_strategy_is_made(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ShardingError) as error:
        TorchRecStrategy(**arguments)
    assert said in str(error.value)

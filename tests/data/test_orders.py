"""The labels of orders: read when they are asked for, refused where nothing can be learned from them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.check.check import check
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.orders import refuse_without_orders
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.errors import DataError
from tests.data.stats import accept_changes


def rewrite(folder: Path, split: str, purchases: Callable[[dict[str, list]], list | None]) -> Path:
    """Replaces the column of a split's only part, or removes it, and says that the change is meant; the part."""
    (part,) = sorted((folder / split).glob("*.parquet"))
    table = pq.read_table(part)
    column = purchases(table.select(["clicks", "purchases"]).to_pydict())
    table = table.drop_columns("purchases")
    if column is not None:
        table = table.append_column("purchases", pa.array(column, pa.list_(pa.int8())))
    pq.write_table(table, part)
    accept_changes(folder)
    return part


def none_sold(columns: dict[str, list]) -> list:
    return [[0] * len(page) for page in columns["purchases"]]


def all_sold(columns: dict[str, list]) -> list:
    return [[1] * len(page) for page in columns["purchases"]]


def batches(folder: Path, split: str, with_orders: bool = True) -> PageBatches:
    return PageBatches(
        Dataset.open(folder), split, batch_pages=24, short_length=5, long_length=4, seed=1, with_orders=with_orders
    )


def test_a_batch_has_the_order_of_each_item(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(orders=True)
    rows = pq.read_table(folder / "train").to_pydict()
    expected = {
        (page, item): bought
        for page, items, of_page in zip(rows["page_id"], rows["items"], rows["purchases"], strict=True)
        for item, bought in zip(items, of_page, strict=True)
    }
    found: dict[tuple[int, int], float] = {}
    for step in range(4):
        batch: PageBatch = batches(folder, "train")[0, step]
        assert batch.orders is not None and batch.orders.dtype == torch.float32
        items = batch.item["item"].values()[batch.target]
        keys = zip(batch.page_id[batch.page].tolist(), items.tolist(), strict=True)
        found |= dict(zip(keys, batch.orders.tolist(), strict=True))
    assert found.keys() == expected.keys() and sum(found.values()) > 10
    # a page may show an item twice
    assert sum(found[key] != expected[key] for key in expected) <= len(rows["page_id"]) // 10
    assert batches(folder, "train", with_orders=False)[0, 0].orders is None
    rewrite(folder, "test", all_sold)  # which is not learned from: a run that has been trained can be tested
    assert batches(folder, "test")[0, 0].orders is not None


@pytest.mark.parametrize("reads_orders", [True, False])
def test_orders_are_read_for_a_module_that_asks(make_dataset: Callable[..., Path], reads_orders: bool) -> None:
    data = PageData(make_dataset(orders=True))
    data.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=SimpleNamespace(reads_orders=reads_orders),
        state=SimpleNamespace(fn="test"),
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_rank=0,
        world_size=1,
    )
    assert ("purchases" in data.test_dataloader().batches.columns) == reads_orders
    assert "purchases" not in data.predict_dataloader().batches.columns


def test_a_split_without_the_column_or_without_an_order_is_refused(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(orders=True)
    refuse_without_orders(Dataset.open(folder), "train")
    rewrite(folder, "train", none_sold)
    with pytest.raises(DataError) as error:
        refuse_without_orders(Dataset.open(folder), "train")
    assert str(error.value) == (
        f"{folder / 'train'}: column purchases: no value is 1, so there is no order to learn from; write 1 for an "
        "exposed item that was bought, or train without model.order_weight"
    )
    part = rewrite(folder, "train", lambda columns: None)
    with pytest.raises(DataError) as error:
        refuse_without_orders(Dataset.open(folder), "train")
    assert str(error.value) == (
        f"{part}: column purchases: missing, and model.order_weight needs it; write it as list<int64>, 1 for an "
        "exposed item that was bought, or train without model.order_weight"
    )


def test_an_order_without_a_click_is_a_warning_of_the_check_and_refused_where_orders_are_read(
    make_dataset: Callable[..., Path],
) -> None:
    folder = make_dataset(orders=True)
    assert not [line for line in check(folder).warnings if "purchases" in line]
    part = rewrite(folder, "train", all_sold)
    first = next(row for row, page in enumerate(pq.read_table(part)["clicks"].to_pylist()) if 0 in page)
    where = f"{part}: row {first}, column purchases: 1, but the item's click is 0; "
    remedy = "an order is that of a click: write 1 in clicks, or 0 here"
    unclicked = sum(page.count(0) for page in pq.read_table(part)["clicks"].to_pylist())
    report = check(folder)
    assert report.errors == []
    assert [line for line in report.warnings if "purchases" in line] == [
        f"{part.parent}: column purchases: {unclicked} orders of items that were not clicked, which model.order_weight "
        f"refuses, such as {where}{remedy}"
    ]
    with pytest.raises(DataError) as error:
        batches(folder, "train")[0, 0]
    assert str(error.value).endswith(remedy)
    assert batches(folder, "train", with_orders=False)[0, 0].orders is None


def test_the_check_counts_orders_and_says_where_there_is_none(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(orders=True)
    part = rewrite(folder, "test", none_sold)
    sold = np.concatenate(pq.read_table(folder / "train")["purchases"].to_pylist()).sum()
    report = check(folder)
    lines = {line.split()[0]: line.split()[1:] for line in report.figures if line.startswith(("orders", "  t"))}
    assert lines["orders"] == ["orders", "per", "click"]
    assert lines["train"][0] == str(sold) and lines["test"] == ["0", "0.0%"]
    assert f"{part.parent}: column purchases: every value is 0, so a test has no order_auc" in report.warnings
    assert not any(line.startswith("orders") for line in check(make_dataset("none")).figures)


def test_the_check_names_a_split_without_the_column_that_others_have(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(orders=True)
    parts = [rewrite(folder, split, lambda columns: None) for split in ("validation", "test")]
    missing = "column purchases: missing, and other files have it, so"
    assert [line for line in check(folder).warnings if "purchases" in line] == [
        f"{parts[0]}: {missing} model.order_weight cannot use it",
        f"{parts[1]}: {missing} a test has no order_auc",
    ]
    rewrite(folder, "train", lambda columns: None)
    assert not [line for line in check(folder).warnings if "purchases" in line]

"""From Parquet to PageBatch, against a page-by-page reading in plain Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import HIDDEN
from lightning_ccn.data.ragged import Ragged, take
from lightning_ccn.data.reader import PageBatches, PageLoader, needed_columns
from lightning_ccn.errors import DataError
from lightning_ccn.nn.tables import PageEmbedding
from tests.data.stats import accept_changes

SHORT, LONG = 3, 2


def batches(folder: Path, split: str = "train", **options: Any) -> PageBatches:
    defaults = {"batch_pages": 16, "short_length": SHORT, "long_length": LONG, "seed": 1}
    return PageBatches(Dataset.open(folder), split, **{**defaults, **options})


def plain_pages(batch: PageBatch) -> dict[int, dict[str, Any]]:
    """The batch taken apart again: by page id, every list as item ids."""
    item = batch.item["item"].values()
    ends = {
        "items": batch.page_lengths.cumsum(0).tolist(),
        "short": batch.short_lengths.cumsum(0).tolist(),
        "long": batch.long_lengths.cumsum(0).tolist(),
    }

    def part(values: Any, name: str, at: int) -> Any:
        return values[ends[name][at - 1] if at else 0 : ends[name][at]]

    def group(at: int) -> list[int]:
        return item[part(batch.long, "long", at)].tolist()

    assert batch.clicks is not None
    return {
        int(page_id): {
            "items": item[part(batch.target, "items", at)].tolist(),
            "clicks": part(batch.clicks, "items", at).tolist(),
            "trigger": int(item[batch.trigger[at]]),
            "short": item[part(batch.short, "short", at)].tolist(),
            "of_target": [group(g) for g in part(batch.target_group, "items", at).tolist()],
            "of_trigger": group(int(batch.trigger_group[at])),
            "price": part(batch.numbers[:, 0], "items", at).tolist(),
            "interests": batch.user["interests"].to_dense()[at].tolist(),
            "user": batch.user["user"].to_dense()[at].tolist(),
        }
        for at, page_id in enumerate(batch.page_id.tolist())
    }


def expected_pages(folder: Path, split: str) -> dict[int, dict[str, Any]]:
    dataset = Dataset.open(folder)
    category = pq.read_table(folder / "items.parquet").column("category").to_pylist()
    mean, deviation = dataset.numbers["price"]

    def search(page: dict[str, Any], item: int) -> list[int]:
        alike = [i for i in page["long_items"] if category[i] == category[item] and category[item] != 0]
        return alike[-LONG:]

    return {
        page["page_id"]: {
            "items": page["items"],
            "clicks": page["clicks"],
            "trigger": page["trigger"],
            "short": page["short_items"][-SHORT:],
            "of_target": [search(page, item) for item in page["items"]],
            "of_trigger": search(page, page["trigger"]),
            "price": pytest.approx([(p - mean) / deviation for p in page["price"]], abs=1e-5),
            "interests": page["interests"],
            "user": [page["user"]],
        }
        for path in dataset.parts(split)
        for page in pq.read_table(path).to_pylist()
    }


def test_a_batch_holds_what_the_pages_hold(dataset: Path) -> None:
    reader = batches(dataset)
    found: dict[int, dict[str, Any]] = {}
    for step in range(len(reader)):
        found |= plain_pages(reader[0, step])
    assert found == expected_pages(dataset, "train")


def test_each_item_of_a_batch_is_looked_up_once(dataset: Path) -> None:
    item = batches(dataset)[0, 0].item
    ids = item["item"].values().tolist()
    assert len(ids) == len(set(ids))
    assert item.stride() == len(ids)


def test_each_value_of_an_attribute_is_looked_up_once(dataset: Path) -> None:
    batch = batches(dataset)[0, 0]
    stored = pq.read_table(dataset / "items.parquet")
    items = batch.item["item"].values().numpy()
    for name in ("category", "seller"):
        values = batch.item[name].values()
        assert len(values) == len(values.unique()) < len(items)
        assert batch.feature_of_item(name).tolist() == stored.column(name).to_numpy()[items].tolist()
    assert batch.attribute_lists is not None and batch.attribute_lists.stride() == len(items)
    values, lists = batch.item["tags"].values(), batch.attribute_lists["tags"]
    assert len(values) == len(values.unique()) < len(lists.values())
    found = [own.tolist() for own in values[lists.values()].split(lists.lengths().tolist())]
    assert found == [stored.column("tags")[at].as_py() for at in items.tolist()]


def test_items_may_have_more_values_of_an_attribute_than_there_are_items(dataset: Path) -> None:
    reader = batches(dataset)
    tags = Ragged.from_lengths(np.arange(61 * 5) % 11 + 1, np.full(61, 5))
    collator = replace(reader.collator, items={**reader.collator.items, "tags": tags}, short_length=0, long_length=0)
    rows = {name: take(column, np.array([0])) for name, column in reader.row_group(0).items() if name != "clicks"}
    one = {name: Ragged(np.array([7]), np.array([0, 1])) for name in ("items", "price")}
    batch = collator({**rows, **one, "trigger": np.array([7])})
    assert batch.item.stride() == 5 and batch.item.length_per_key() == [1, 1, 1, 5]
    embedding = PageEmbedding(reader.dataset.schema, dim=4)
    assert embedding(batch).item.shape == (1, 20)


def test_long_behaviours_of_categories_not_on_the_page_are_not_looked_up(dataset: Path) -> None:
    batch = batches(dataset)[0, 0]
    used = [batch.target, batch.trigger, batch.short, batch.long]
    assert set(np.concatenate(used).tolist()) == set(range(batch.item.stride()))


def test_slices_of_ranks_add_up_and_end_together(dataset: Path) -> None:
    ranks = [batches(dataset, rank=rank, world_size=3) for rank in range(3)]
    assert len({len(reader) for reader in ranks}) == 1
    for step in range(len(ranks[0])):
        together = [page for reader in ranks for page in reader[2, step].page_id.tolist() if page >= 0]
        assert together == batches(dataset)[2, step].page_id.tolist()


def test_a_slice_without_pages_is_a_batch_without_items(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(pages={"train": 3, "validation": 2, "test": 2}, numbers=("price",))
    batch = batches(folder, rank=0, world_size=4, batch_pages=4)[0, 0]
    assert (batch.items, batch.pages, batch.page_id.tolist()) == (0, 1, [-1])


def test_pages_without_items_are_left_out(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(numbers=("price",))
    part = next((folder / "train").glob("*.parquet"))
    pages = pq.read_table(part).to_pylist()
    for column in ("items", "clicks", "price"):
        pages[0][column] = []
    pq.write_table(pa.Table.from_pylist(pages, schema=pq.read_schema(part)), part)
    accept_changes(folder)
    reader = batches(folder, batch_pages=96)
    assert pages[0]["page_id"] not in reader[0, 0].page_id.tolist()
    assert reader[0, 0].pages == len(pages) - 1


def test_workers_give_the_same_batches_in_the_same_order(dataset: Path) -> None:
    alone, helped = PageLoader(batches(dataset)), PageLoader(batches(dataset), workers=2)
    assert [b.page_id.tolist() for b in alone] == [b.page_id.tolist() for b in helped]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_continues_at_its_saved_position(dataset: Path, workers: int) -> None:
    whole = [batch.page_id.tolist() for batch in PageLoader(batches(dataset))]
    loader = PageLoader(batches(dataset), workers)
    iterator = iter(loader)
    for _ in range(2):
        next(iterator)
    state = loader.state_dict()
    assert (state["epoch"], state["step"]) == (0, 2)  # not what workers have made ahead
    other = PageLoader(batches(dataset), workers)
    other.load_state_dict(state)
    assert [batch.page_id.tolist() for batch in other] == whole[2:]
    other.sampler.set_epoch(1)
    assert len(list(other)) == len(whole)


def test_a_batch_is_announced_before_the_one_that_precedes_it_is_handed_out(dataset: Path) -> None:
    told: list[str] = []
    loader = PageLoader(batches(dataset), announce=lambda batch: told.append(f"announced {int(batch.page_id[0])}"))
    pages = [batch.page_id.tolist() for batch in PageLoader(batches(dataset))]
    for at, batch in enumerate(loader):
        told.append(f"handed out {int(batch.page_id[0])}")
        assert batch.page_id.tolist() == pages[at]
        assert loader.state_dict()["step"] == at + 1  # what is announced only is read again after a restart
    first = [own[0] for own in pages]
    expected = [f"announced {first[0]}"]
    for now, after in pairwise(first):
        expected += [f"announced {after}", f"handed out {now}"]
    assert told == [*expected, f"handed out {first[-1]}"]


def test_a_position_at_the_end_of_an_epoch_is_the_start_of_the_next(dataset: Path) -> None:
    loader = PageLoader(batches(dataset))
    list(loader)
    other = PageLoader(batches(dataset))
    other.load_state_dict(loader.state_dict())
    assert (other.sampler.epoch, other.sampler.start) == (1, 0)


def test_no_batch_has_what_a_world_hides(dataset: Path) -> None:
    assert not HIDDEN & set(needed_columns(Dataset.open(dataset)))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_id_outside_its_table_ends_with_one_clear_line(make_dataset: Callable[..., Path], workers: int) -> None:
    folder = make_dataset(numbers=("price",))
    part = next((folder / "train").glob("*.parquet"))
    pages = pq.read_table(part).to_pylist()
    pages[7]["trigger"] = 61
    pq.write_table(pa.Table.from_pylist(pages, schema=pq.read_schema(part)), part)
    accept_changes(folder)
    with pytest.raises(DataError) as caught:
        list(PageLoader(batches(folder), workers))
    message = str(caught.value)
    assert message.startswith(f"{part}: row 7, column trigger: 61")
    assert "\n" not in message


def test_a_split_without_pages_is_rejected(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(pages={"train": 4, "validation": 0, "test": 2}, numbers=("price",))
    with pytest.raises(DataError, match="validation: no page views"):
        batches(folder, "validation")


@pytest.mark.parametrize("at", ["part-00000-a.parquet", "part-0.parquet", "part-9.parquet"])
def test_a_part_without_row_groups_changes_nothing(make_dataset: Callable[..., Path], at: str) -> None:
    folder = make_dataset(pages={"train": 96, "validation": 2, "test": 2})
    (part,) = (folder / "train").glob("*.parquet")
    table = pq.read_table(part)
    pq.write_table(table.slice(0, 48), part)
    pq.write_table(table.slice(48), folder / "train" / "part-00001.parquet")
    accept_changes(folder)
    expected = [batch.page_id.tolist() for batch in PageLoader(batches(folder, seed=None))]
    pq.ParquetWriter(folder / "train" / at, table.schema).close()
    accept_changes(folder)
    assert [batch.page_id.tolist() for batch in PageLoader(batches(folder, seed=None))] == expected

"""Numbers of exposed items and time gaps of behaviours on their way into a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ccn.data.collate import Collator
from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.data.parquet import PageRows, decode, list_column, open_part, value_column
from lightning_ccn.data.ragged import Ragged, take
from lightning_ccn.data.reader import PageBatches, needed_columns
from lightning_ccn.data.rules import read_items
from lightning_ccn.errors import DataError

Collate = Callable[[np.ndarray, tuple[float, float]], np.ndarray]


@pytest.fixture
def numbers_of(dataset: Path) -> Collate:
    """`numbers_of(values, moments)`: what the model gets if the first items' prices are these values."""
    opened = Dataset.open(dataset)
    with open_part(opened.parts("train")[0]) as file:
        rows = decode(file, 0, needed_columns(opened))

    def collate(values: np.ndarray, moments: tuple[float, float]) -> np.ndarray:
        price = rows["price"]
        assert isinstance(price, Ragged)
        stored = np.full(len(price.values), np.nan, values.dtype)
        stored[: len(values)] = values
        vectors = open_vectors(opened.folder, opened.schema)
        collator = Collator(opened.schema, read_items(opened), {"price": moments}, 3, 3, vectors)
        return collator({**rows, "price": Ragged(stored, price.offsets)}).numbers.numpy()[: len(values), 0]

    return collate


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_numbers_are_standardised_in_double_precision(numbers_of: Collate, dtype: type) -> None:
    found = numbers_of(np.array([2.0, 60_000.0, np.nan], dtype), (-60_000.0, 2.0))  # the difference exceeds float16
    np.testing.assert_array_equal(found, [30_001.0, np.float32((float(dtype(60_000)) + 60_000) / 2), 0.0])


def test_a_number_that_would_overflow_in_the_model_is_refused(numbers_of: Collate) -> None:
    with pytest.raises(DataError) as error:
        numbers_of(np.array([1.0, 1e29]), (0.0, 1e-3))
    assert str(error.value).startswith("page_id ")
    assert "column price: 1e+29 is 1e+32 deviations from the mean of training, 0; write NaN or null" in str(error.value)


def test_a_pages_number_is_standardised_and_an_unknown_one_is_the_mean(
    make_dataset: Callable[..., Path], edit: Callable[..., Path]
) -> None:
    folder = make_dataset(page_numbers=("age",))
    before = Dataset.open(folder).numbers["age"]
    assert before == pytest.approx((100, 5), rel=0.2)

    def change(columns: dict[str, list]) -> None:
        columns["age"][:3] = [before[0] + 2 * before[1], None, float("nan")]

    edit(folder, "train", change)
    opened = Dataset.open(folder)
    with open_part(opened.parts("train")[0]) as file:
        rows = decode(file, 0, needed_columns(opened))
    vectors = open_vectors(opened.folder, opened.schema)
    collator = Collator(opened.schema, read_items(opened), opened.numbers, 3, 3, vectors)
    np.testing.assert_allclose(collator(rows).page_numbers.numpy()[:3, 0], [2.0, 0.0, 0.0], atol=1e-5)
    nobody = {name: take(column, np.zeros(0, np.int64)) for name, column in rows.items()}
    assert collator(nobody).page_numbers.tolist() == [[0.0]]  # the placeholder


def test_time_gaps_are_those_of_the_behaviours_that_the_search_keeps(dataset: Path) -> None:
    pages = opened(dataset, short_length=3, long_length=3)
    batch, rows = pages[0, 0], pages.row_group(0)
    category, trigger = read_items(pages.dataset)["category"], value_column(rows, "trigger")
    assert isinstance(category, np.ndarray)
    short_of, long_of = short_and_long(rows)

    def bucket(page: int, time: int) -> int:
        return min(67, math.floor(4 * math.log2(1 + max(int(value_column(rows, "time")[page]) - time, 0) / 60)))

    item = batch.item["item"].values()
    short, long = batch.short_of_page, batch.long_of_trigger
    assert short.gap is not None and long.gap is not None
    for page in range(24):
        seen = short.seen[page]
        expected = short_of[page][-3:]
        assert item[short.index[page][seen]].tolist() == [one for one, _ in expected]
        assert short.gap[page][seen].tolist() == [bucket(page, time) for _, time in expected]
        seen, own = long.seen[page], category[trigger[page]]
        expected = [(one, time) for one, time in long_of[page] if own and category[one] == own][-3:]
        assert item[long.index[page][seen]].tolist() == [one for one, _ in expected]
        assert long.gap[page][seen].tolist() == [bucket(page, time) for _, time in expected]
    assert len(set(long.gap[long.seen].tolist())) > 3


def short_and_long(rows: PageRows) -> list[list[list[tuple[int, int]]]]:
    """(item, time) of each page's short and long behaviours."""
    found = []
    for which in ("short", "long"):
        items, times = list_column(rows, f"{which}_items"), list_column(rows, f"{which}_times")
        pairs = list(zip(items.values.tolist(), times.values.tolist(), strict=True))
        found.append([pairs[a:b] for a, b in pairwise(items.offsets)])
    return found


def opened(
    folder: Path, split: str = "test", short_length: int = 5, long_length: int = 4, with_gaps: bool = True
) -> PageBatches:
    return PageBatches(
        Dataset.open(folder),
        split,
        batch_pages=24,
        short_length=short_length,
        long_length=long_length,
        with_gaps=with_gaps,
    )


def test_times_are_read_only_for_who_asks(dataset: Path) -> None:
    without = opened(dataset, with_gaps=False)
    assert not {"time", "short_times", "long_times"} & {*without.columns}
    assert (without[0, 0].short_gap, without[0, 0].long_gap) == (None, None)
    no_long = opened(dataset, long_length=0)
    assert "long_times" not in no_long.columns
    batch = no_long[0, 0]
    assert batch.short_gap is not None and batch.short_gap.any()
    assert batch.long_gap is not None and not len(batch.long_gap)


def test_a_cut_folder_has_the_gaps_of_the_whole_one(dataset: Path, tmp_path: Path) -> None:
    cut_folder(dataset, tmp_path / "cut", long_length=3)
    whole, cut = (opened(folder, "train", long_length=3)[0, 0] for folder in (dataset, tmp_path / "cut"))
    assert whole.long_gap is not None and cut.long_gap is not None
    assert torch.equal(cut.long, whole.long) and torch.equal(cut.long_gap, whole.long_gap)

"""Numbers of exposed items on their way into a batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lightning_ccn.data.collate import Collator
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.item_vectors import open_vectors
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.ragged import Ragged, take
from lightning_ccn.data.reader import needed_columns
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

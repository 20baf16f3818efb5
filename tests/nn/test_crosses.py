"""The wide part's crossed ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.nn.crosses import HashedCrosses


@pytest.fixture(scope="module")
def batch(dataset: Path) -> PageBatch:
    return PageBatches(Dataset.open(dataset), "train", batch_pages=96, short_length=1, long_length=1)[0, 0]


@pytest.fixture
def crosses(dataset: Path) -> HashedCrosses:
    return HashedCrosses(Dataset.open(dataset).schema, rows=1 << 30)  # so many that no two pairs should meet


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables on meta: these tests look at rows."""
    monkeypatch.setattr("lightning_ccn.nn.crosses.table_device", lambda: torch.device("meta"))


def test_profile_features_of_one_value_are_crossed_with_all_item_features(
    crosses: HashedCrosses, batch: PageBatch
) -> None:
    assert (crosses.of_page, crosses.of_item) == (["user", "city"], ["item", "category", "seller"])  # not `interests`
    assert crosses.ids(batch).shape == (batch.items, 6)


def test_equal_pairs_have_equal_rows_and_others_do_not(crosses: HashedCrosses, batch: PageBatch) -> None:
    rows = crosses.ids(batch).numpy()
    values = [
        (crossing, user, item)
        for crossing, (of_page, of_item) in enumerate((u, i) for u in crosses.of_page for i in crosses.of_item)
        for user, item in zip(
            batch.user[of_page].values()[batch.page].tolist(),
            batch.feature_of_item(of_item)[batch.target].tolist(),
            strict=True,
        )
    ]
    pairs = set(zip(values, rows.T.ravel().tolist(), strict=True))
    assert len(pairs) == len(set(values)) == len(np.unique(rows))
    assert len(values) > len(pairs)  # some do occur again


def test_rows_spread_over_the_table_and_spare_the_unknown_one(crosses: HashedCrosses, batch: PageBatch) -> None:
    eighth = np.bincount(np.unique(crosses.ids(batch)) * 8 >> 30, minlength=8)
    assert len(eighth) == 8
    assert eighth.min() > 0.8 * eighth.mean()
    crosses.rows = 3
    assert np.unique(crosses.ids(batch)).tolist() == [1, 2]

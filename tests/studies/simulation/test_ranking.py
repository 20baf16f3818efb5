"""Ranking candidates by clicks, by orders, or by both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.rules import read_items
from lightning_ccn.studies.simulation.log_share import log_shares
from lightning_ccn.studies.simulation.ranking import Ranking

RNG = np.random.default_rng(0)
CLICK = RNG.random(50, dtype=np.float32)
ORDER = CLICK * RNG.random(50, dtype=np.float32)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_a_mix_orders_as_the_product_of_powers(share: float) -> None:
    product = CLICK.astype(float) ** share * ORDER.astype(float) ** (1 - share)
    assert (Ranking("mix", share).scores(CLICK, ORDER).argsort() == product.argsort()).all()
    assert (Ranking("click").scores(CLICK, None) == CLICK).all()
    assert (Ranking("order").scores(CLICK, ORDER) == ORDER).all()


def test_a_probability_of_0_comes_last_in_a_mix() -> None:
    scores = Ranking("mix").scores(np.array([0.5, 0.9, 0.1]), np.array([0.1, 0.0, 1e-30]))
    assert scores.argsort().tolist() == [1, 2, 0]


def test_the_shares_of_a_log_are_those_of_a_loop_over_its_pages(dataset: Path) -> None:
    opened = Dataset.open(dataset)
    category = read_items(opened)["category"]
    assert isinstance(category, np.ndarray)
    rows = pq.read_table(dataset / "test").to_pylist()
    pairs = [
        (category[item] == category[row["trigger"]], click)
        for row in rows
        for item, click in zip(row["items"], row["clicks"], strict=True)
    ]
    assert log_shares(opened, category) == {
        "alike_shown": pytest.approx(np.mean([alike for alike, _ in pairs])),
        "alike_clicked": pytest.approx(np.mean([alike for alike, click in pairs if click])),
    }

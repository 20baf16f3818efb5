"""The metrics of orders beside those of clicks: scikit-learn's values, over batches and ranks."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import distributed

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.evaluation.split_metrics import SplitMetrics
from lightning_ccn.models.system import Prediction
from tests.models.pages import planted
from tests.sharding.ranks import on_ranks


def scored(seed: int, pages: int = 50) -> tuple[Prediction, PageBatch]:
    """Pages with orders of some of the clicks, and a prediction that knows a little of both."""
    generator = torch.Generator().manual_seed(seed)
    batch = planted(seed, pages).batch
    assert batch.clicks is not None
    orders = batch.clicks * (torch.rand(batch.items, generator=generator) < 0.3)
    noise = torch.randn(2, batch.items, generator=generator)
    prediction = Prediction(logit=noise[0] + batch.clicks, conversion=noise[1] + 2 * orders - 1)
    return prediction, replace(batch, orders=orders)


def product(prediction: Prediction) -> np.ndarray:
    assert prediction.conversion is not None
    return (prediction.logit.double().sigmoid() * prediction.conversion.double().sigmoid()).numpy()


def test_they_are_those_of_the_product_of_both_probabilities() -> None:
    metrics = SplitMetrics(None)
    parts = [scored(seed) for seed in (1, 2)]
    for part in parts:
        metrics.update(*part)
    found, undefined = metrics.finish("val_")
    p = np.concatenate([product(prediction) for prediction, _ in parts])
    orders = np.concatenate([np.asarray(batch.orders) for _, batch in parts])
    assert found["val_order_auc"] == pytest.approx(roc_auc_score(orders, p), abs=1e-5)
    assert found["val_order_logloss"] == pytest.approx(log_loss(orders, p), rel=1e-6)
    assert found["val_order_calibration"] == pytest.approx(p.sum() / orders.sum(), rel=1e-6)
    assert undefined == [] and found["val_items"] == 600


def test_without_a_head_or_without_labels_there_are_none_and_without_an_order_they_are_undefined() -> None:
    prediction, batch = scored(1)
    metrics = SplitMetrics(None)
    metrics.update(replace(prediction, conversion=None), batch)
    metrics.update(prediction, replace(batch, orders=None))
    assert not [name for name in metrics.finish("")[0] if name.startswith("order")]
    metrics.update(prediction, replace(batch, orders=torch.zeros(300)))
    found, undefined = metrics.finish("")
    assert np.isnan(found["order_auc"]) and np.isfinite(found["order_logloss"])
    assert "order_auc undefined: every one of the 300 labels is 0" in undefined
    metrics.update(prediction, batch)  # a new epoch
    assert metrics.finish("")[1] == []


def evaluate_on_rank(store: str) -> dict[str, float]:
    rank = int(os.environ["LOCAL_RANK"])
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    metrics = SplitMetrics(None)
    for seed in (1, 2):
        metrics.update(*scored(seed + 10 * rank, pages=10 + 30 * rank))
    return metrics.finish("")[0]


@pytest.mark.slow
def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    found = on_ranks(2, evaluate_on_rank, store=str(tmp_path / "store"))
    metrics = SplitMetrics(None)
    for rank in (0, 1):
        for seed in (1, 2):
            metrics.update(*scored(seed + 10 * rank, pages=10 + 30 * rank))
    expected = metrics.finish("")[0]
    for values in found:
        assert values == pytest.approx(expected, rel=1e-12)

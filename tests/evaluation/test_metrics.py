"""The metrics against scikit-learn, and their sum over two real processes against one."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, distributed

from lightning_ccn.evaluation.metrics import (
    AUC,
    METRICS,
    Calibration,
    CTRMetrics,
    LogLoss,
    NormalizedEntropy,
    PageAUC,
    metric_titles,
)
from tests.sharding.ranks import on_ranks

Pages = tuple[Tensor, Tensor, Tensor]


def some_pages(seed: int, pages: int = 60) -> Pages:
    """Logits (a quarter of them tied with others), labels, lengths; pages of one label and of no item among them."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, 12, (pages,), generator=generator)
    items = int(lengths.sum())
    logits = torch.randn(items, generator=generator) - 1
    logits = torch.where(torch.rand(items, generator=generator) < 0.25, logits.round(), logits)
    clicks = (torch.rand(items, generator=generator) < logits.sigmoid()).float()
    return logits, clicks, lengths


def labels_for(score: Tensor) -> Tensor:
    """Clicks with the log-odds score - 2."""
    return torch.rand(len(score), generator=torch.Generator().manual_seed(1)) < torch.sigmoid(score - 2)


MILLION = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "logits",
    [
        pytest.param(MILLION - 2, id="as a model gives them"),
        pytest.param((MILLION * 8).round() / 8 - 2, id="heavily tied"),
        pytest.param(MILLION.relu() - 2, id="half of them tied at one value"),
        pytest.param(0.01 * MILLION - 3, id="concentrated at the base rate"),
        pytest.param(0.001 * MILLION - 3, id="concentrated more"),
        pytest.param(0.001 * MILLION, id="concentrated around 0"),
        pytest.param(0.05 * MILLION + 12, id="concentrated where all probabilities are nearly 1"),
        pytest.param(1e4 * MILLION, id="beyond every probability but 0 and 1"),
        pytest.param(1e37 * MILLION, id="near the end of float32"),
    ],
)
def test_auc_of_a_million_scores_is_scikit_learns(logits: Tensor) -> None:
    clicks = labels_for(MILLION)
    auc = AUC()
    for batch in zip(logits.split(300_000), clicks.split(300_000), strict=True):
        auc.update(*batch)
    assert auc.compute().item() == pytest.approx(roc_auc_score(clicks, logits.double()), abs=1e-5)


def test_auc_sees_logits_that_differ_by_the_resolution_it_states() -> None:
    for logit in (0.0, 0.3, -3.0, 9.0, -14.9):
        step = (abs(logit) + 1) / 2**18
        auc = AUC()
        auc.update(torch.tensor([logit, logit + 2 * step]), torch.tensor([0, 1]))
        assert auc.compute() == 1


def test_auc_ties_zero_with_minus_zero() -> None:
    auc = AUC()
    auc.update(torch.tensor([-0.0, 0.0]), torch.tensor([0, 1]))
    assert auc.compute() == 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_logits_may_have_any_float_dtype(dtype: torch.dtype) -> None:
    logits, clicks, lengths = some_pages(0)
    metrics, expected = CTRMetrics(), CTRMetrics()
    metrics.update(logits.to(dtype), clicks.bool(), lengths)
    expected.update(logits.to(dtype).float(), clicks, lengths)
    torch.testing.assert_close(metrics.compute(), expected.compute(), rtol=1e-12, atol=0)


def test_page_auc_is_the_mean_of_scikit_learns_over_pages_weighted_by_items() -> None:
    logits, clicks, lengths = some_pages(1, pages=300)
    aucs, weights = [], []
    for x, y in zip(logits.split(lengths.tolist()), clicks.split(lengths.tolist()), strict=True):
        if 0 < y.sum() < len(y):
            aucs.append(roc_auc_score(y, x))
            weights.append(len(y))
    metric = PageAUC()
    metric.update(logits, clicks, lengths)
    assert 50 < len(weights) < 300
    assert metric.compute().item() == pytest.approx(np.average(aucs, weights=weights), abs=1e-12)


def test_log_loss_normalised_entropy_and_calibration_follow_their_definitions() -> None:
    logits, clicks, _ = some_pages(2)
    probability = logits.double().sigmoid().numpy()
    rate = clicks.double().mean().item()
    expected = log_loss(clicks, probability)
    for metric, value in (
        (LogLoss(), expected),
        (NormalizedEntropy(), expected / log_loss(clicks, np.full(len(clicks), rate))),
        (Calibration(), probability.mean() / rate),
    ):
        metric.update(logits, clicks)
        assert metric.compute().item() == pytest.approx(value, rel=1e-12)


def test_predicting_the_base_rate_has_normalised_entropy_and_calibration_one() -> None:
    clicks = torch.tensor([1, 0, 0, 0, 1, 0, 0, 0])
    metrics = CTRMetrics()
    metrics.update(torch.full((8,), math.log(1 / 3)), clicks, torch.tensor([4, 4]))
    values = metrics.compute()
    assert values["normalized_entropy"].item() == pytest.approx(1, abs=1e-6)
    assert values["calibration"].item() == pytest.approx(1, abs=1e-6)
    assert values["auc"] == values["page_gauc"] == 0.5


def test_batches_add_up() -> None:
    batches = [some_pages(seed) for seed in range(5)]
    metrics, at_once = CTRMetrics(), CTRMetrics()
    for batch in batches:
        metrics.update(*batch)
    at_once.update(*(torch.cat(column) for column in zip(*batches, strict=True)))
    torch.testing.assert_close(metrics.compute(), at_once.compute(), rtol=1e-12, atol=0)
    assert metrics.compute()["pages"] == sum(int((lengths > 0).sum()) for _, _, lengths in batches)
    assert metrics.compute()["items"] == sum(len(logits) for logits, _, _ in batches)


def test_after_a_reset_nothing_is_left() -> None:
    metrics, fresh = CTRMetrics(), CTRMetrics()
    metrics.update(*some_pages(3))
    metrics.compute()
    metrics.reset()
    for each in (metrics, fresh):
        each.update(*some_pages(4))
    assert metrics.compute() == fresh.compute()


def test_states_take_35_megabytes_at_most() -> None:
    metrics = CTRMetrics()
    metrics.update(*some_pages(5))
    states = [state for metric in metrics.values(copy_state=False) for state in metric.metric_state.values()]
    assert sum(state.nbytes for state in states if isinstance(state, Tensor)) < 35e6


def test_nothing_seen_is_nan_with_the_reason() -> None:
    metrics = CTRMetrics()
    metrics.update(torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    metrics.update(torch.zeros(0), torch.zeros(0), torch.zeros(2, dtype=torch.int64))
    values = metrics.compute()
    assert (values.pop("pages"), values.pop("items")) == (0, 0)
    assert all(value.isnan() for value in values.values())
    assert sorted(metrics.undefined) == [f"{name} undefined: no impression was seen" for name in sorted(values)]


@pytest.mark.parametrize(
    ("label", "undefined"),
    [
        (0, ["auc", "calibration", "hit_at_1", "hit_at_3", "mrr", "ndcg", "normalized_entropy", "page_gauc"]),
        (1, ["auc", "normalized_entropy", "page_gauc"]),
    ],
)
def test_labels_all_alike_leave_undefined_what_needs_both(label: int, undefined: list[str]) -> None:
    logits, _, lengths = some_pages(6)
    metrics = CTRMetrics()
    metrics.update(logits, torch.full_like(logits, label), lengths)
    values = metrics.compute()
    assert sorted(name for name, value in values.items() if value.isnan()) == undefined
    assert f"auc undefined: every one of the {len(logits)} labels is {label}" in metrics.undefined
    assert f"page_gauc undefined: none of the {len(lengths)} pages has both labels" in metrics.undefined
    assert len(metrics.undefined) == len(undefined)


def test_what_becomes_defined_is_no_longer_called_undefined() -> None:
    logits, clicks, lengths = some_pages(7)
    metrics = CTRMetrics()
    metrics.update(logits, torch.zeros_like(clicks), lengths)
    metrics.compute()
    metrics.update(logits, clicks, lengths)
    assert all(value.isfinite() for value in metrics.compute().values())
    assert metrics.undefined == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_nan_or_infinite_logit_makes_every_metric_undefined(value: float) -> None:
    logits, clicks, lengths = some_pages(8)
    metrics = CTRMetrics()
    metrics.update(logits.index_fill(0, torch.tensor([3, 5]), value), clicks, lengths)
    assert sum(value.isnan() for value in metrics.compute().values()) == len(METRICS)
    assert f"auc undefined: 2 of the {len(logits)} logits are NaN or infinite" in metrics.undefined


def test_shapes_that_do_not_fit_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"logits are \[3, 1\], clicks \[3\]; both must be \[items\]"):
        AUC().update(torch.zeros(3, 1), torch.zeros(3))


# What each of two ranks sees in a step; the last batch of an epoch leaves the second one without pages.
STEPS: list[tuple[Pages, Pages]] = [
    (some_pages(10, pages=7), some_pages(11, pages=40)),
    (some_pages(12, pages=30), some_pages(13, pages=1)),
    (some_pages(14, pages=2), some_pages(15, pages=0)),
]


def evaluate_on_rank(store: str) -> list[tuple[dict[str, Tensor], list[str]]]:
    """Values after two steps, after the third, and in a new epoch in which this rank or the other sees nothing."""
    rank = int(os.environ["LOCAL_RANK"])
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    metrics, results = CTRMetrics(), []
    for number, step in enumerate(STEPS):
        metrics.update(*step[rank])
        if number > 0:
            results.append((metrics.compute(), metrics.undefined))
    metrics.reset()
    metrics.update(*STEPS[2][rank])
    results.append((metrics.compute(), metrics.undefined))
    return results


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    results = on_ranks(2, evaluate_on_rank, store=str(tmp_path / "store"))
    seen = [STEPS[:2], STEPS, STEPS[2:]]
    for steps, *ranks in zip(seen, *results, strict=True):
        single = CTRMetrics()
        for batch in (page for step in steps for page in step):
            single.update(*batch)
        expected = single.compute()
        for values, undefined in ranks:
            torch.testing.assert_close(values, expected, rtol=1e-12, atol=0, equal_nan=True)
            assert undefined == single.undefined


def test_metrics_that_share_their_sums_form_a_group() -> None:
    groups = CTRMetrics().compute_groups.values()
    alone, ranking = [["auc"], ["calibration"]], ["ndcg", "mrr", "hit_at_1", "hit_at_3"]
    assert sorted(groups) == [*alone, ["logloss", "normalized_entropy"], ranking, ["page_gauc"], ["volume"]]


def test_a_metric_that_is_registered_later_is_reported_and_has_a_title(monkeypatch: pytest.MonkeyPatch) -> None:
    class LaterLoss(LogLoss):
        title = "later loss"

    monkeypatch.setitem(METRICS, "later", LaterLoss)
    logits, clicks, lengths = some_pages(9)
    metrics = CTRMetrics()
    metrics.update(logits, clicks, lengths)
    values = metrics.compute()
    assert values["later"] == values["logloss"]
    assert metric_titles()["later"] == "later loss"

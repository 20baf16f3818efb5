"""Effects of pages on metrics, against the metrics themselves and a bootstrap that resamples the pages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.metrics import roc_auc_score

from lightning_ccn.evaluation.metrics import PageAUC
from lightning_ccn.evaluation.page_effects import auc_effects, page_auc_effects, user_effects

Pages = tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_], npt.NDArray[np.int64]]


@pytest.fixture(scope="module")
def pages() -> Pages:
    """200 pages that differ in clickiness, which the logits know in part; a few ties, and pages of one label."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 15, 200)
    level = np.repeat(draw.normal(size=200), lengths)
    logits = (level + draw.normal(size=lengths.sum())).round(2)
    return logits, draw.random(lengths.sum()) < 1 / (1 + np.exp(1 - logits - level)), lengths


def auc(logits: torch.Tensor, clicks: torch.Tensor, lengths: torch.Tensor) -> float:
    return float(roc_auc_score(clicks, logits))  # exact, and faster than our metric on so few items


def page_auc(logits: torch.Tensor, clicks: torch.Tensor, lengths: torch.Tensor) -> float:
    metric = PageAUC()
    metric.update(logits, clicks, lengths)
    return float(metric.compute())


CASES = pytest.mark.parametrize(
    ("effects", "metric"), [(auc_effects, auc), (page_auc_effects, page_auc)], ids=["auc", "page AUC"]
)


def of_pages(pages: Pages, chosen: npt.NDArray[np.int64]) -> tuple[torch.Tensor, ...]:
    """The items of the chosen pages, which may repeat."""
    logits, clicks, lengths = pages
    starts = np.cumsum(lengths) - lengths
    items = np.concatenate([np.arange(starts[page], starts[page] + lengths[page]) for page in chosen])
    return tuple(torch.from_numpy(value) for value in (logits[items], clicks[items], lengths[chosen]))


@CASES
def test_the_effects_sum_to_zero_and_one_is_the_slope_of_the_metric_in_the_weight_of_its_page(
    effects: Callable[..., npt.NDArray[np.float64]], metric: Callable[..., float], pages: Pages
) -> None:
    found = effects(*pages)
    assert found.sum() == pytest.approx(0, abs=1e-12)
    everyone = np.arange(len(found))
    for page in np.argsort(-np.abs(found))[:5]:
        # 20 copies of all pages and one more of this page: a weight of 1.05 instead of 1
        step = metric(*of_pages(pages, np.append(np.tile(everyone, 20), page))) - metric(*of_pages(pages, everyone))
        assert 20 * step == pytest.approx(found[page], rel=0.05)


@CASES
def test_the_root_of_the_sum_of_squares_is_the_bootstraps_standard_error_over_pages(
    effects: Callable[..., npt.NDArray[np.float64]], metric: Callable[..., float], pages: Pages
) -> None:
    draw, count = np.random.default_rng(1), len(pages[2])
    resampled = [metric(*of_pages(pages, draw.integers(0, count, count))) for _ in range(300)]
    assert np.sqrt((effects(*pages) ** 2).sum()) == pytest.approx(np.std(resampled), rel=0.12)


def test_the_effects_of_users_give_the_bootstraps_standard_error_over_users(pages: Pages) -> None:
    logits, clicks, lengths = pages
    thrice = auc_effects(np.tile(logits, 3), np.tile(clicks, 3), np.tile(lengths, 3))  # each user has three equal pages
    found = user_effects(thrice, np.tile(np.arange(1, 201), 3))
    # so their AUC varies as that of one page each
    assert np.sqrt((found**2).sum()) == pytest.approx(np.sqrt((auc_effects(*pages) ** 2).sum()))


@pytest.mark.parametrize("effects", [auc_effects, page_auc_effects])
def test_labels_that_are_all_equal_have_no_effects(effects: Callable[..., npt.NDArray[np.float64]]) -> None:
    assert np.isnan(effects(np.array([0.0, 1.0]), np.array([False, False]), np.array([2]))).all()

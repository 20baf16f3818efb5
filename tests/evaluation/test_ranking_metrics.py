"""NDCG, MRR and hit@k of a page, against scikit-learn and against a loop over its items."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torch import Tensor

from lightning_ccn.evaluation.ranking_metrics import HitAt1, HitAt3, PageMRR, PageNDCG, PageRanking
from tests.evaluation.test_metrics import some_pages


def by_page(logits: Tensor, clicks: Tensor, lengths: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    pages = zip(logits.split(lengths.tolist()), clicks.split(lengths.tolist()), strict=True)
    return [(x.numpy(), y.numpy()) for x, y in pages if y.sum() > 0]


def computed(kind: type[PageRanking], *pages: Tensor) -> float:
    metric = kind()
    metric.update(*pages)
    return metric.compute().item()


def first_rank(logits: np.ndarray, clicks: np.ndarray) -> float:
    """The rank of the highest clicked item; tied items share the mean of their ranks."""
    return min((logits > x).sum() + ((logits == x).sum() + 1) / 2 for x in logits[clicks > 0])


def test_ndcg_is_scikit_learns() -> None:
    pages = some_pages(1, pages=300)
    # scikit-learn refuses pages of one item, whose NDCG is 1
    expected = [ndcg_score([y], [x]) if len(y) > 1 else 1.0 for x, y in by_page(*pages)]
    assert computed(PageNDCG, *pages) == pytest.approx(np.mean(expected), abs=1e-12)


def test_reciprocal_ranks_and_hits_are_those_of_a_loop_over_pages() -> None:
    pages = some_pages(2, pages=300)
    ranks = np.array([first_rank(x, y) for x, y in by_page(*pages)])
    assert computed(PageMRR, *pages) == pytest.approx((1 / ranks).mean(), abs=1e-12)
    assert computed(HitAt1, *pages) == pytest.approx((ranks <= 1).mean(), abs=1e-12)
    assert computed(HitAt3, *pages) == pytest.approx((ranks <= 3).mean(), abs=1e-12)


@pytest.mark.parametrize("kind", [PageNDCG, PageMRR, HitAt1, HitAt3])
def test_a_page_with_its_clicked_items_first_is_as_good_as_can_be(kind: type[PageRanking]) -> None:
    page = torch.tensor([0.1, 3.0, 2.0, -1.0, 0.0]), torch.tensor([0, 1, 1, 0, 0]), torch.tensor([5])
    assert computed(kind, *page) == 1
    assert computed(kind, -page[0], *page[1:]) < 1


def test_pages_without_a_click_do_not_count() -> None:
    logits, clicks, lengths = torch.tensor([1.0, 2.0, 5.0]), torch.tensor([1, 0, 0]), torch.tensor([2, 1])
    assert computed(PageMRR, logits, clicks, lengths) == 0.5


def test_without_any_click_they_are_undefined() -> None:
    metric = PageNDCG()
    metric.update(torch.tensor([1.0, 2.0]), torch.tensor([0, 0]), torch.tensor([2]))
    assert metric.compute().isnan()
    assert metric.undefined == "no page has a click"

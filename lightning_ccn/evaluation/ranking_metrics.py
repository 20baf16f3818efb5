"""How high a page's clicked items are: NDCG, the mean reciprocal rank, and hit@k.

A page without a click has none of them and is left out; the others count alike, whatever their length. Tied items
share: each gets the mean of their gains, or of their ranks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_ccn.evaluation.click_metric import ClickMetric
from lightning_ccn.evaluation.page_ranks import PageRanks


class PageRanking(ClickMetric):
    """The sums of all ranking metrics. All items of a page must come in the same `update`."""

    higher_is_better = True

    ranked_pages: Tensor
    ndcg: Tensor
    reciprocal_rank: Tensor
    hits_at_1: Tensor
    hits_at_3: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("ranked_pages", torch.int64)
        self.add_sum("ndcg", torch.float64)
        self.add_sum("reciprocal_rank", torch.float64)
        self.add_sum("hits_at_1", torch.int64)
        self.add_sum("hits_at_3", torch.int64)

    def update(self, logits: Tensor, clicks: Tensor, page_lengths: Tensor) -> None:  # type: ignore[override]
        """Adds a batch of whole pages.

        Args:
            logits: Float [items], page-major.
            clicks: [items] of any dtype, 0 or 1.
            page_lengths: Int64 [pages]; sums to `items`.

        Raises:
            ValueError: The shapes of logits and clicks differ or are not [items].
        """
        super().update(logits, clicks)
        ranks, pages = PageRanks.of(logits, page_lengths), page_lengths.numel()
        clicked = clicks[ranks.order] > 0
        page_clicks = ranks.page_sums(clicked, pages)
        some = page_clicks > 0
        gain = 1 / torch.log2(1 + ranks.from_top.double())  # of a clicked item at this place
        first_places = ranks.from_top <= page_clicks[ranks.page]  # where all clicked items would best be
        best = ranks.page_sums(gain * first_places, pages).masked_fill(~some, 1)
        found = ranks.page_sums(ranks.shared(gain) * clicked, pages)
        infinite = torch.full_like(page_clicks, math.inf)
        rank = torch.where(clicked, ranks.shared(ranks.from_top), math.inf)
        first = infinite.scatter_reduce(0, ranks.page, rank, "amin")  # of the highest clicked item
        self.ranked_pages += some.sum()
        self.ndcg += (found / best).sum()
        self.reciprocal_rank += (1 / first).sum()
        self.hits_at_1 += (first <= 1).sum()
        self.hits_at_3 += (first <= 3).sum()

    def why_undefined(self) -> str | None:
        """See `ClickMetric.why_undefined`."""
        no_page = "no page has a click" if self.ranked_pages == 0 else None
        return super().why_undefined() or no_page


class PageNDCG(PageRanking):
    """Normalised discounted cumulative gain of a page: 1 if all clicked items are first (Järvelin, Kekäläinen 2002)."""

    title = "NDCG"

    def value(self) -> Tensor:
        """Mean over the pages with a click."""
        return self.ndcg / self.ranked_pages


class PageMRR(PageRanking):
    """Mean reciprocal rank of a page's highest clicked item."""

    title = "MRR"

    def value(self) -> Tensor:
        """Mean over the pages with a click."""
        return self.reciprocal_rank / self.ranked_pages


class HitAt1(PageRanking):
    """Share of the pages with a click whose first item was clicked."""

    title = "hit@1"

    def value(self) -> Tensor:
        """Share of the pages with a click."""
        return self.hits_at_1.double() / self.ranked_pages


class HitAt3(PageRanking):
    """Share of the pages with a click that have a clicked item among the first three."""

    title = "hit@3"

    def value(self) -> Tensor:
        """Share of the pages with a click."""
        return self.hits_at_3.double() / self.ranked_pages

"""The order of each page's items by their logits, with ties."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PageRanks:
    """Items page by page, lowest logit first. Nothing here makes the host wait for a GPU.

    Attributes:
        order: Int64 [items], where each of them is in the batch.
        page: Int64 [items], the page of each.
        position: Int64 [items], from 1 for the page's lowest logit on; tied items are in any order.
        from_top: Int64 [items], from 1 for the page's highest logit on.
    """

    order: Tensor
    page: Tensor
    position: Tensor
    from_top: Tensor
    _tie: Tensor

    @staticmethod
    def of(logits: Tensor, page_lengths: Tensor) -> PageRanks:
        """Orders a batch.

        Args:
            logits: Float [items], page-major.
            page_lengths: Int64 [pages]; sums to `items`.
        """
        page = torch.repeat_interleave(page_lengths, output_size=logits.numel())
        order = logits.argsort()
        order = order[page[order].argsort(stable=True)]
        logits, page = logits[order], page[order]
        first = torch.ones_like(page, dtype=torch.bool)
        first[1:] = (logits[1:] != logits[:-1]) | (page[1:] != page[:-1])
        start = page_lengths.cumsum(0) - page_lengths
        position = torch.arange(1, logits.numel() + 1, device=page.device) - start[page]
        return PageRanks(order, page, position, page_lengths[page] - position + 1, first.cumsum(0) - 1)

    def shared(self, values: Tensor) -> Tensor:
        """The mean of the values over the items that are tied with each item: float64 [items]."""
        zeros = torch.zeros(values.numel(), dtype=torch.float64, device=values.device)
        count, total = zeros.index_add(0, self._tie, zeros + 1), zeros.index_add(0, self._tie, values.double())
        return (total / count.clamp(min=1))[self._tie]

    def page_sums(self, values: Tensor, pages: int) -> Tensor:
        """Sums over each page's items: float64 [pages]."""
        zeros = torch.zeros(pages, dtype=torch.float64, device=values.device)
        return zeros.index_add(0, self.page, values.double())

"""A page as a serving graph sees it: one page, rectangular tensors, and items that are embedded already.

Training reads many pages of ragged tensors. A request is one page, and its tables are outside the graph. `OnePage` has
the attributes of a `PageBatch` that a system's `forward` reads, so the graph is made of the very code that was trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_ccn.data.padding import PaddedBehaviours, Places, filled_and_bias
from lightning_ccn.nn.tables import Embedded, PageEmbedding


@dataclass(frozen=True)
class WholePage(Places):
    """Places of the targets of one page: the padded form has a dimension more, and nothing is moved."""

    def pad(self, rows: Tensor) -> Tensor:
        """float [items, dim] -> [1, items, dim]."""
        return rows.unsqueeze(0)

    def unpad(self, padded: Tensor) -> Tensor:
        """[1, items, dim] -> [items, dim]."""
        return padded.squeeze(0)


@dataclass(frozen=True)
class OnePage:
    """The inputs of a serving graph, and what a system reads of a `PageBatch`.

    Attributes:
        user: Float [1, user_dim], E_user.
        item: Float [distinct, the items' tables], the embeddings of the page's distinct items.
        target: Int64 [items], index into the distinct items.
        trigger: Int64 [1], index into the distinct items.
        short: Int64 [longest short], index into the distinct items, oldest first; anything after the last behaviour.
        short_lengths: Int64 [1].
        long: Int64 [groups, longest long], the searched long behaviours of each category; anything after the last one.
        long_lengths: Int64 [groups].
        target_group: Int64 [items], the group of each target's category.
        trigger_group: Int64 [1].
        numbers: Float [items, number_dim].
        vectors: Float [distinct, sum of the widths], the frozen vectors of the items; None in data without.
        wide: Float [items], the logit of Wide & Deep's wide part; None in other systems.
        short_gap: Int64 [longest short], the bucket of the time between each behaviour of `short` and the page, see
            `data.time_gaps`; None in a system that does not read it.
        long_gap: Int64 [groups, longest long], the same of `long`.
    """

    user: Tensor
    item: Tensor
    target: Tensor
    trigger: Tensor
    short: Tensor
    short_lengths: Tensor
    long: Tensor
    long_lengths: Tensor
    target_group: Tensor
    trigger_group: Tensor
    numbers: Tensor
    vectors: Tensor | None = None
    wide: Tensor | None = None
    short_gap: Tensor | None = None
    long_gap: Tensor | None = None

    @property
    def pages(self) -> int:
        """One."""
        return 1

    @property
    def items(self) -> int:
        """Number of targets."""
        return self.target.shape[0]

    @property
    def page(self) -> Tensor:
        """int64 [items], the page of each target."""
        return torch.zeros_like(self.target)

    @property
    def of_page(self) -> Places:
        """Where the targets are in a tensor that is padded by page."""
        return WholePage(self.target, 1, self.items)

    @property
    def each_page(self) -> Places:
        """Places of one query per page."""
        return Places(None, 1, 1)

    @property
    def each_target(self) -> Places:
        """Places of one query per target."""
        return Places(None, self.items, 1)

    @property
    def short_of_page(self) -> PaddedBehaviours:
        """[1, longest short]."""
        return _padded(self.short[None], self.short_lengths, None if self.short_gap is None else self.short_gap[None])

    @property
    def long_of_target(self) -> PaddedBehaviours:
        """[items, longest long]."""
        return self._long_of(self.target_group)

    @property
    def long_of_trigger(self) -> PaddedBehaviours:
        """[1, longest long]."""
        return self._long_of(self.trigger_group)

    def _long_of(self, group: Tensor) -> PaddedBehaviours:
        gap = None if self.long_gap is None else self.long_gap[group]
        return _padded(self.long[group], self.long_lengths[group], gap)


def _padded(index: Tensor, lengths: Tensor, gap: Tensor | None) -> PaddedBehaviours:
    """Int64 [segments, longest], int64 [segments], int64 [segments, longest] -> the padded behaviours."""
    return PaddedBehaviours(index, *filled_and_bias(torch.arange(index.shape[1]), lengths[:, None]), gap)


class GivenEmbedding(nn.Module):
    """Takes the place of `PageEmbedding`: what is looked up comes with the request.

    Args:
        embedding: What it stands for; its layer for frozen vectors stays where it was.
    """

    def __init__(self, embedding: PageEmbedding) -> None:
        super().__init__()
        self.vectors = embedding.vectors

    def forward(self, page: OnePage) -> Embedded:
        """The page's embeddings; shapes in `Embedded`."""
        item = page.item
        if self.vectors is not None:
            item = torch.cat([item, self.vectors(page.vectors)], 1)
        return Embedded(page.user, item, item[page.target], item[page.trigger], page.numbers)


class GivenWide(nn.Module):
    """Takes the place of `HashedCrosses`, whose table is outside the graph too."""

    def forward(self, page: OnePage) -> Tensor:
        """float [items]."""
        assert page.wide is not None
        return page.wide

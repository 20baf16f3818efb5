"""`PageBatch`: the page views that a model gets, with each distinct item stored once."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable


@dataclass
class PageBatch(Pipelineable):
    """One rank's slice of a global batch of page views.

    A page view is a page that one user saw once. Its exposed items are the targets, each to be scored. The trigger is
    the item that the user clicked to enter the page. Behaviours are what the user did before.

    User, trigger and behaviours are stored once per page. Targets, triggers and behaviours are indices into the batch's
    distinct items, so that each row of an item table is fetched, communicated and updated once, and each item is
    projected once.

    The long sequence has already been searched: each pair of a page and a category (of a target or of the trigger) has
    a group with the most recent K behaviours of that category, oldest first. A group may be empty.

    A rank whose slice is empty still takes part in every collective operation. Its batch is a placeholder: one page
    (page_id -1) without items, so that lookups have a page, and losses and metrics have no item.

    Attributes:
        page_id: Int64 [pages].
        user: Profile features; one key per feature, stride = pages.
        item: Features of the distinct items; one key per feature, exactly one value each.
        target: Int64 [items], index into the distinct items; page-major.
        page_lengths: Int64 [pages], number of exposed items of each page; sums to `items`.
        trigger: Int64 [pages], index into the distinct items (the unknown item where a page has no trigger).
        short: Int64 [behaviours], index into the distinct items; page-major, oldest first.
        short_lengths: Int64 [pages].
        long: Int64 [searched behaviours], index into the distinct items; group-major, oldest first.
        long_lengths: Int64 [groups]; groups are page-major.
        target_group: Int64 [items], the group of each target's category on its page.
        trigger_group: Int64 [pages], the group of each trigger's category.
        numbers: Float32 [items, numbers], standardised.
        clicks: Float32 [items] in {0, 1}; None when the data has no clicks (predict).
    """

    page_id: Tensor
    user: KeyedJaggedTensor
    item: KeyedJaggedTensor
    target: Tensor
    page_lengths: Tensor
    trigger: Tensor
    short: Tensor
    short_lengths: Tensor
    long: Tensor
    long_lengths: Tensor
    target_group: Tensor
    trigger_group: Tensor
    numbers: Tensor
    clicks: Tensor | None

    @property
    def pages(self) -> int:
        """Number of page views."""
        return self.page_lengths.numel()

    @property
    def items(self) -> int:
        """Number of exposed items on all pages."""
        return self.target.numel()

    @property
    def page(self) -> Tensor:
        """Int64 [items]: the page of each exposed item."""
        return torch.repeat_interleave(self.page_lengths, output_size=self.items)

    def to(self, device: torch.device, non_blocking: bool = False) -> PageBatch:
        """The batch on another device."""
        return self._map(lambda value: value.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> PageBatch:
        """The batch in page-locked memory; PageLoader calls this."""
        return self._map(lambda value: value.pin_memory())

    def record_stream(self, stream: torch.cuda.streams.Stream) -> None:
        """Marks every tensor as used by `stream`; TorchRec's pipelines call this."""
        self._map(lambda value: value.record_stream(stream) or value)

    def _map(self, apply: Any) -> PageBatch:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {n: None if value is None else apply(value) for n, value in values.items()}
        return PageBatch(**moved)

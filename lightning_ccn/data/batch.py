"""`PageBatch`: page views on their way to a model, each distinct item once."""

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
    """Page views of one rank's slice of a global batch.

    User, trigger and behaviours stand once a page; only exposed items are ragged within it. Targets, triggers and
    sequence positions are indices into the batch's distinct items, so that each table row is fetched,
    communicated and updated once, and each item is projected once whatever number of places it stands in.

    The long sequence arrives already searched: one group for each (page, category of a target or of the
    trigger), holding the behaviours of that category, most recent K, oldest first. A group may be empty.

    A rank whose slice has no page left still takes part in every collective operation. Its batch holds one page of
    nobody (page_id -1) without items: lookups need a page, losses and metrics see no item.

    Attributes:
        page_id: int64 [pages].
        user: profile features, one key a feature, stride = pages.
        item: item features of the distinct items, one key a feature, exactly one value each.
        target: int64 [items], index into the distinct items; page-major.
        page_lengths: int64 [pages], exposed items of each page; sums to `items`.
        trigger: int64 [pages], index into the distinct items (the unknown item where a page has none).
        short: int64 [behaviours], index into the distinct items; page-major, oldest first.
        short_lengths: int64 [pages].
        long: int64 [searched behaviours], index into the distinct items; group-major, oldest first.
        long_lengths: int64 [groups]. Groups are page-major.
        target_group: int64 [items], the group of each target's category on its page.
        trigger_group: int64 [pages], the group of each trigger's category.
        numbers: float32 [items, numbers], standardised.
        clicks: float32 [items] in {0, 1}; None when the data has no labels (predict).
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
        """Number of exposed items, over all pages."""
        return self.target.numel()

    @property
    def page(self) -> Tensor:
        """int64 [items]: the page of each exposed item."""
        return torch.repeat_interleave(self.page_lengths, output_size=self.items)

    def to(self, device: torch.device, non_blocking: bool = False) -> PageBatch:
        """The batch on another device."""
        return self._map(lambda value: value.to(device=device, non_blocking=non_blocking))

    def pin_memory(self) -> PageBatch:
        """The batch in page-locked memory; DataLoader calls this."""
        return self._map(lambda value: value.pin_memory())

    def record_stream(self, stream: torch.cuda.streams.Stream) -> None:
        """Marks every tensor as in use by `stream`; TorchRec's pipelines call this."""
        self._map(lambda value: value.record_stream(stream) or value)

    def _map(self, apply: Any) -> PageBatch:
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        moved: dict[str, Any] = {n: None if value is None else apply(value) for n, value in values.items()}
        return PageBatch(**moved)

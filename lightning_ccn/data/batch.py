"""`PageBatch`: the page views that a model gets, with each distinct item stored once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from lightning_ccn.data.packing import Packed, pack
from lightning_ccn.data.padding import PaddedBehaviours, Places, pad_behaviours

T = TypeVar("T")
_NOTHING = torch.empty(0, dtype=torch.int64)


@dataclass
class PageBatch(Pipelineable):
    """One rank's slice of a global batch of page views.

    A page view is a page that one user saw once. Its exposed items are the targets, each to be scored. The trigger is
    the item that the user clicked to enter the page. Behaviours are what the user did before.

    User, trigger and behaviours are stored once per page. Targets, triggers and behaviours are indices into the batch's
    distinct items, so that each row of an item table is fetched, communicated and updated once, and each item is
    projected once. The same holds for the item's attributes: the batch stores each distinct category once.

    The long sequence has already been searched: each pair of a page and a category (of a target or of the trigger) has
    a group with the most recent K behaviours of that category, oldest first. A group may be empty.

    A rank whose slice is empty still takes part in every collective operation. Its batch is a placeholder: one page
    (page_id -1) without items, so that lookups have a page, and losses and metrics have no item.

    Whatever depends on the lengths is known to the reader. It comes as Python numbers (`longest_short`, ...) and as
    ready tensors (`page`, `of_page`, ...): to find it out from tensors, the host would have to wait for the GPU.

    Attributes:
        page_id: Int64 [pages].
        user: Profile features; one key per feature, stride = pages.
        item: The distinct values of the item features; one key per feature: the item itself, the attributes with one
            value, then those with many. A key has one value per row, and none in the rows after its last value. The
            stride is the number of distinct items, or that of the values of a key that has more.
        attribute: Int64 [attributes with one value, distinct], for each of them, which of the key's values each
            distinct item has; see `feature_of_item`.
        target: Int64 [items], index into the distinct items; page-major.
        page_lengths: Int64 [pages], number of exposed items of each page; sums to `items`.
        page: Int64 [items], the page of each exposed item.
        of_page: Where the targets are in a tensor that is padded by page.
        trigger: Int64 [pages], index into the distinct items (the unknown item where a page has no trigger).
        short: Int64 [behaviours], index into the distinct items; page-major, oldest first.
        short_lengths: Int64 [pages].
        longest_short: The largest of `short_lengths`; at least 1.
        long: Int64 [searched behaviours], index into the distinct items; group-major, oldest first.
        long_lengths: Int64 [groups]; groups are page-major.
        longest_long: The largest of `long_lengths`; at least 1, or 0 if the reader was told to leave them out.
        target_group: Int64 [items], the group of each target's category on its page.
        trigger_group: Int64 [pages], the group of each trigger's category.
        numbers: Float32 [items, numbers], standardised.
        page_numbers: Float32 [pages, page numbers], standardised.
        clicks: Float32 [items] in {0, 1}; None when the data has no clicks (predict).
        position: Int64 [items], which bias the item's position on the page gets in training; None if no position has
            one, and without clicks.
        weight: Float32 [items], how much each item counts in the training loss; None if all count alike, and without
            clicks.
        orders: Float32 [items] in {0, 1}, whether each item was bought; None if the reader was not told to read them.
        attribute_lists: For each attribute with many values, which of the key's values in `item` each distinct item
            has; one key per attribute, stride = distinct items. None if there is no such attribute.
        vectors: Float32 [distinct, sum of the widths], the frozen vectors of each distinct item, side by side in the
            schema's order; zeros for the unknown item. None if there are none.
        logarithms: Float32 [distinct, names], of the numbers whose ratio to the trigger counts; NaN where unknown. None
            if there are none.
        short_gap: Int64 [behaviours], the bucket of the time between each behaviour of `short` and its page, see
            `time_gaps`. None if the reader was not told to read the times.
        long_gap: Int64 [searched behaviours], the same of `long`.
    """

    page_id: Tensor
    user: KeyedJaggedTensor
    item: KeyedJaggedTensor
    attribute: Tensor
    target: Tensor
    page_lengths: Tensor
    page: Tensor
    of_page: Places
    trigger: Tensor
    short: Tensor
    short_lengths: Tensor
    longest_short: int
    long: Tensor
    long_lengths: Tensor
    longest_long: int
    target_group: Tensor
    trigger_group: Tensor
    numbers: Tensor
    page_numbers: Tensor
    clicks: Tensor | None
    position: Tensor | None = None
    weight: Tensor | None = None
    orders: Tensor | None = None
    attribute_lists: KeyedJaggedTensor | None = None
    vectors: Tensor | None = None
    logarithms: Tensor | None = None
    short_gap: Tensor | None = None
    long_gap: Tensor | None = None

    def __post_init__(self) -> None:
        # looked up once: each look at a tensor's shape costs as much as a small operation
        self.pages, self.items = self.page_lengths.numel(), self.target.numel()
        self.device = self.page_id.device
        self.storages: list[Tensor] = []  # what all tensors are views of, if they came packed
        self._made: dict[str, Any] = {}

    def feature_of_item(self, name: str) -> Tensor:
        """The value of an item feature that has one, for each distinct item: int64 [distinct]."""
        values: Tensor = self.item[name].values()
        at = self.item.keys().index(name)
        return values[self.attribute[at - 1]] if at else values

    def same_as_trigger(self, name: str) -> Tensor:
        """Whether target and trigger have the same value of an item feature, and a known one: bool [items]."""
        value = self.feature_of_item(name)  # [distinct]
        of_target, of_trigger = value[self.target], value[self.trigger][self.page]
        return (of_target == of_trigger) & (of_target != 0)

    @property
    def each_page(self) -> Places:
        """Places of one query per page, such as the triggers."""
        return Places(None, self.pages, 1)

    @property
    def each_target(self) -> Places:
        """Places of one query per target."""
        return Places(None, self.items, 1)

    @property
    def short_of_page(self) -> PaddedBehaviours:
        """The short sequence of each page: [pages, longest_short]."""
        return self._once("short_of_page", self._pad_short)

    @property
    def long_of_target(self) -> PaddedBehaviours:
        """The long behaviours of each target's category: [items, longest_long]."""
        return self._once("long_of_target", lambda: self._long.of(self.target_group))

    @property
    def long_of_trigger(self) -> PaddedBehaviours:
        """The long behaviours of the trigger's category: [pages, longest_long]."""
        return self._once("long_of_trigger", lambda: self._long.of(self.trigger_group))

    @property
    def _long(self) -> PaddedBehaviours:
        return self._once("long", self._pad_long)  # [groups, longest_long]

    def _pad_short(self) -> PaddedBehaviours:
        return pad_behaviours(self.short, self.short_lengths, self.longest_short, self.short_gap)

    def _pad_long(self) -> PaddedBehaviours:
        if not self.longest_long:
            raise ValueError("the batch has no long behaviours, since the system says `reads_long = False`")
        return pad_behaviours(self.long, self.long_lengths, self.longest_long, self.long_gap)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        """What `make` returns, made once; torch.compile makes it where it is used, as part of a larger kernel."""
        if torch.compiler.is_compiling():
            return make()
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    def to(self, device: torch.device, non_blocking: bool = False) -> PageBatch:
        """The batch on another device, or itself if it is there already; `packed` needs one copy instead of twenty."""
        if device == self.device:
            return self
        return self.with_tensors([tensor.to(device, non_blocking=non_blocking) for tensor in self.tensors()])

    def packed(self, pin_memory: bool = False) -> PackedBatch:
        """The batch in one buffer, page-locked if so asked."""
        like = self.with_tensors([_NOTHING] * len(self.tensors()))
        return PackedBatch(like, pack(self.tensors(), pin_memory))

    def pin_memory(self) -> PackedBatch:
        """The batch in one buffer of page-locked memory."""
        return self.packed(pin_memory=True)

    def record_stream(self, stream: torch.cuda.streams.Stream) -> None:
        """Marks every tensor as used by `stream`; TorchRec's pipelines call this."""
        for tensor in self.storages or self.tensors():
            tensor.record_stream(stream)

    def tensors(self) -> list[Tensor]:
        """All tensors, those of the KeyedJaggedTensors too, in a fixed order."""
        found: list[Tensor] = []
        for field in dataclasses.fields(self):
            found += _tensors_of(getattr(self, field.name))
        return found

    def with_tensors(self, tensors: list[Tensor], storages: Sequence[Tensor] = ()) -> PageBatch:
        """The same batch with other tensors, in the order of `tensors`; `storages` are what these are views of."""
        left = iter(tensors)
        values = {field.name: _rebuilt(getattr(self, field.name), left) for field in dataclasses.fields(self)}
        batch = PageBatch(**values)
        batch.storages = list(storages)
        return batch


@dataclass(frozen=True)
class PackedBatch(Pipelineable):
    """A `PageBatch` on its way from a worker to the training, or to a GPU.

    Attributes:
        like: The batch, with an empty tensor in place of each of its own.
        tensors: Its tensors.
    """

    like: PageBatch
    tensors: Packed

    def to(self, device: torch.device, non_blocking: bool = False) -> PageBatch:
        """The batch, on a device: one copy, and one operation there that widens its numbers."""
        return self.like.with_tensors(*self.tensors.to(device, non_blocking).unpack())

    def pin_memory(self) -> PackedBatch:
        """The same in page-locked memory, from where a GPU can copy while the host goes on."""
        return PackedBatch(self.like, self.tensors.pin_memory())

    def record_stream(self, stream: torch.cuda.streams.Stream) -> None:
        """Marks the buffer as used by `stream`."""
        self.tensors.buffer.record_stream(stream)


def _tensors_of(value: Any) -> list[Tensor]:
    if isinstance(value, KeyedJaggedTensor):
        return [value.values(), value.lengths()]
    tensor = value.place if isinstance(value, Places) else value
    return [tensor] if isinstance(tensor, Tensor) else []


def _rebuilt(value: Any, tensors: Iterator[Tensor]) -> Any:
    if isinstance(value, KeyedJaggedTensor):
        # the lengths of the keys go along: TorchRec would read them from the GPU
        per_key = value.length_per_key()
        return keyed_jagged(value.keys(), next(tensors), next(tensors), value.stride(), per_key)
    if isinstance(value, Places):
        return dataclasses.replace(value, place=next(tensors)) if value.place is not None else value
    return next(tensors) if isinstance(value, Tensor) else value


def keyed_jagged(
    keys: list[str], values: Tensor, lengths: Tensor, stride: int, length_per_key: list[int]
) -> KeyedJaggedTensor:
    """A KeyedJaggedTensor that need not look into `lengths`, which may be on a GPU, for the lengths of its keys.

    Args:
        keys: Names of the features.
        values: int64 [sum of `length_per_key`], key-major.
        lengths: int64 [keys * stride], key-major.
        stride: Number of rows of each key.
        length_per_key: Number of values of each key.
    """
    return KeyedJaggedTensor(
        keys=keys,
        values=values,
        lengths=lengths,
        stride=stride,
        length_per_key=length_per_key,
        offset_per_key=[0, *accumulate(length_per_key)],
    )

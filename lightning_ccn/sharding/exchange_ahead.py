"""Sends the ids of the next batch to the ranks that hold their rows, while the ranks compute this batch.

A lookup starts with an exchange in two parts: every rank tells the others how many ids it will send, and then sends
them. The host has to wait for the numbers. Without a head start, it does so at the beginning of every step, when the
GPU has nothing to do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec import KeyedJaggedTensor
from torchrec.distributed.types import Awaitable

from lightning_ccn.sharding.errors import ShardingError

Part = Callable[[Any], Any]  # from a batch to a part of it

AT_MOST = 2  # exchanges of one collection that are under way: this batch's and the next one's


@dataclass
class _Exchange:
    """An exchange that has started.

    Attributes:
        ids: The ids that are sent; they tell which batch it is.
        context: What TorchRec keeps of the input until the lookup.
        numbers: The first part of the exchange; None once its end was waited for.
        ids_of_others: The second part; None until then.
    """

    ids: Tensor
    context: Any
    numbers: Awaitable[Any] | None
    ids_of_others: Awaitable[Any] | None = None

    def send(self) -> None:
        """Starts the second part."""
        if self.numbers is not None:
            self.ids_of_others, self.numbers = self.numbers.wait(), None


class ExchangeAhead:
    """Starts the exchanges of a module's sharded collections before their forward pass.

    The first training step shows which part of a batch each collection looks up: the batch itself, an attribute, or an
    element of a mapping or sequence. A collection whose input is none of these on some rank, such as one that the
    module puts together, exchanges it in its forward pass, as without this class.

    Args:
        sharded: The collections; their `forward` is replaced.
        device: This rank's device.
    """

    def __init__(self, sharded: Sequence[nn.Module], device: torch.device) -> None:
        self.device = device
        # by collection, of each batch that was begun and not looked up: its exchange, or None if it has not started
        self._begun: dict[Any, deque[_Exchange | None]] = {found: deque(maxlen=AT_MOST) for found in sharded}
        self._due: set[Any] = set()  # collections that have looked up nothing in this training step
        self._batch: Any = None  # of the first training step, during that step
        self._seen: dict[Any, Part | None] = {}  # what this rank has seen in that step
        self._parts: dict[Any, Part] | None = None  # what all ranks have seen
        for collection in sharded:
            collection.forward = partial(self._forward, collection, collection.forward)

    def begin(self, batch: Any) -> None:
        """Starts the first part for a batch. Every rank must call it for the same step, and before that step.

        Args:
            batch: On this rank's device; the object that `training_step` will get, or one with the same tensors.

        Raises:
            ShardingError: An id is outside of its table, or the batch has no row for a collection.
        """
        if self._parts is None and self._seen:
            self._parts = self._agreed()
        for collection, begun in self._begun.items():
            part = (self._parts or {}).get(collection)
            begun.append(None if part is None else _begin(collection, part(batch)))

    def start_step(self, batch: Any) -> None:
        """To be called before each training step, with its batch."""
        self._due = set(self._begun)
        self._batch = None if self._seen else batch

    def send(self) -> None:
        """Starts the second part of everything that has begun; the host waits until the ranks know the numbers."""
        self._due = set()
        for begun in self._begun.values():
            for exchange in begun:
                if exchange is not None:
                    exchange.send()

    def forget(self) -> None:
        """Drops what has begun: the next batch is that of another run."""
        for begun in self._begun.values():
            begun.clear()

    def _agreed(self) -> dict[Any, Part]:
        """The parts that every rank has found; a collective operation."""
        found = torch.tensor([self._seen.get(c) is not None for c in self._begun], dtype=torch.int32)
        found = found.to(self.device)
        dist.all_reduce(found, dist.ReduceOp.MIN)
        parts = {}
        for collection, everywhere in zip(self._begun, found.tolist(), strict=True):
            if everywhere and (part := self._seen[collection]) is not None:
                parts[collection] = part
        return parts

    def _forward(
        self, collection: Any, forward: Callable[[KeyedJaggedTensor], Any], features: KeyedJaggedTensor
    ) -> Any:
        if collection not in self._due:  # a validation, or a second lookup
            return forward(features)
        self._due.remove(collection)
        if self._batch is not None:
            self._seen[collection] = _part_of(self._batch, features)
        begun = self._begun[collection]
        exchange = begun.popleft() if begun else None
        if exchange is None:
            return forward(features)
        if exchange.ids is not features.values():
            raise ShardingError(
                f"the {type(collection).__name__} of {', '.join(features.keys())} looks up other ids than those of its "
                "batch that were sent ahead: let every batch hold its ids as they are looked up, or set "
                "trainer.strategy.exchange_ahead to false"
            )
        exchange.send()
        assert exchange.ids_of_others is not None
        return collection.compute_and_output_dist(exchange.context, exchange.ids_of_others.wait())


def _begin(collection: Any, features: KeyedJaggedTensor) -> _Exchange:
    context = collection.create_context()
    return _Exchange(features.values(), context, collection.input_dist(context, features))


def _part_of(batch: Any, features: KeyedJaggedTensor) -> Part | None:
    """How to get to `features` from a batch."""
    if batch is features:
        return lambda batch: batch
    if isinstance(batch, Mapping):
        return next((itemgetter(key) for key, value in batch.items() if value is features), None)
    if isinstance(batch, Sequence):
        return next((itemgetter(at) for at, value in enumerate(batch) if value is features), None)
    return next((attrgetter(name) for name, value in vars(batch).items() if value is features), None)

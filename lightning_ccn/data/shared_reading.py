"""Several processes that read for one rank: one of them decodes a row group, another one makes the batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Generic, Protocol, TypeVar

from lightning_ccn.data.ready_pages import Blocks, joined
from lightning_ccn.data.workers import Workers

Batch = TypeVar("Batch", covariant=True)
At = tuple[int, int]  # (epoch, step)


class ReadsInShares(Protocol[Batch]):
    """Reads the pages of a batch in shares, and makes the batch of them; see `reader.PageBatches`."""

    def blocks(self, at: At, share: int, shares: int) -> Blocks:
        """The pages of one share."""
        ...

    def batch(self, blocks: Blocks) -> Batch:
        """The batch of all shares' pages, joined in order."""
        ...


class SharedReading(Generic[Batch]):
    """Makes the batches of some steps, in their order, from the shares that processes of its own read.

    If every worker made whole batches, every worker would decode every row group, since the pages of a row group are
    spread over many batches. Here a process reads the row groups of its own lanes.

    It is made in one process and used in another, a worker: that one starts the readers at the first batch.

    Args:
        reader: Reads the shares and makes the batches.
        steps: The steps whose batches will be asked for, in this order.
        shares: Number of processes that read.
    """

    def __init__(self, reader: ReadsInShares[Batch], steps: Sequence[At], shares: int) -> None:
        self._reader, self._steps, self._shares = reader, steps, shares
        self._blocks: Iterator[Blocks] | None = None

    def __getitem__(self, at: At) -> Batch:
        """The batch of the next step.

        Raises:
            DataError: A file is corrupt, or a value breaks a rule of `rules`.
            TrainingError: A reader ended.
        """
        if self._blocks is None:
            keys = [(step, share) for step in self._steps for share in range(self._shares)]
            self._blocks = iter(Workers(_Shares(self._reader, self._shares), keys, self._shares))
        return self._reader.batch(joined(islice(self._blocks, self._shares)))


class _Shares:
    def __init__(self, reader: ReadsInShares[object], shares: int) -> None:
        self._reader, self._shares = reader, shares

    def __getitem__(self, key: tuple[At, int]) -> Blocks:
        at, share = key
        return self._reader.blocks(at, share, self._shares)

"""Tensors that are cut into rows over ranks, as torch.distributed.checkpoint (DCP) writes and reads them.

Rows are written in blocks, so that neither saving nor loading ever holds more than a block beside the table itself,
and any block can be read by any rank of any later world.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType
from torchrec.distributed.types import ShardedTensor

BLOCK_BYTES = 64 * 2**20


class ShardedRows:
    """This rank's parts of a tensor that is cut into runs of rows (or columns), as DCP reads and writes it.

    DCP's own path for TorchRec's `ShardedTensor` copies a whole shard to save it and reads a whole shard to load
    a row of it.
    """

    def __init__(self, size: torch.Size, parts: list[tuple[torch.Size, Tensor]]) -> None:
        """`size` of the whole, and (offset of its first element, values) of each part held here."""
        self._size = size
        self.parts = [(offset, values) for offset, values in parts if values.numel()]

    @classmethod
    def of(cls, value: ShardedTensor) -> ShardedRows:
        """The local shards of `value`, as views."""
        shards = value.local_shards()
        return cls(value.metadata().size, [(torch.Size(s.metadata.shard_offsets), s.tensor) for s in shards])

    def size(self) -> torch.Size:
        """Size of the whole, on every rank."""
        return self._size

    def clone(self) -> ShardedRows:
        """A copy in main memory."""
        return ShardedRows(self._size, [(offset, copy_to_host(values)) for offset, values in self.parts])

    def _blocks(self) -> Iterable[tuple[torch.Size, Tensor]]:
        for offset, values in self.parts:
            step = max(1, BLOCK_BYTES * len(values) // values.nbytes)
            for row in range(0, len(values), step):
                yield torch.Size((offset[0] + row, *offset[1:])), values[row : row + step]

    def __create_write_items__(self, fqn: str, _: object) -> list[WriteItem]:
        return [
            WriteItem(
                index=MetadataIndex(fqn, offset),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(
                    chunk=ChunkStorageMetadata(offsets=offset, sizes=values.size()),
                    properties=TensorProperties.create_from_tensor(values),
                    size=self._size,
                ),
            )
            for offset, values in self._blocks()
        ]

    def __create_chunk_list__(self) -> list[ChunkStorageMetadata]:
        return [ChunkStorageMetadata(offset, values.size()) for offset, values in self.parts]

    def block(self, index: MetadataIndex) -> Tensor:
        """The block that was announced to the save planner with this offset."""
        return next(values for offset, values in self._blocks() if offset == index.offset)

    def part(self, index: MetadataIndex) -> Tensor:
        """The part that was announced to the load planner with this offset."""
        return next(values for offset, values in self.parts if offset == index.offset)


def copy_to_host(value: Tensor) -> Tensor:
    """A copy in main memory that shares nothing with `value`."""
    return value.detach().to("cpu", copy=True)


class SavePlanner(DefaultSavePlanner):
    """DCP's planner for a flat dict whose values may be `ShardedRows`."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> Any:
        """What to write for `index`."""
        value = self.state_dict[index.fqn]
        return value.block(index) if isinstance(value, ShardedRows) else super().lookup_object(index)


class LoadPlanner(DefaultLoadPlanner):
    """DCP's planner for a flat dict whose values may be `ShardedRows`; tensors are filled in place."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Take `state_dict` as it is: DCP's own puts None in the place of values whose type it does not know."""
        self.state_dict = self.original_state_dict = state_dict
        self.metadata, self.is_coordinator = metadata, is_coordinator

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        """Where to put what was read for `index`."""
        value = self.state_dict[index.fqn]
        return value.part(index) if isinstance(value, ShardedRows) else super().lookup_tensor(index)

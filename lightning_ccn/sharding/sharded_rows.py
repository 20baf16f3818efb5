"""Tensors whose rows are split over ranks, as torch.distributed.checkpoint (DCP) writes and reads them.

Rows are written in blocks. Saving and loading need memory for one block besides the table, and any rank of a later run
can read any block.
"""

from __future__ import annotations

import io
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
from torch.distributed.checkpoint.planner import ReadItem, TensorWriteData, WriteItem, WriteItemType
from torchrec.distributed.types import ShardedTensor

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.plain_values import read_plain

BLOCK_BYTES = 64 * 2**20


class ShardedRows:
    """This rank's parts of a tensor that is split by rows (or columns), as DCP reads and writes it.

    DCP also supports TorchRec's `ShardedTensor`, but copies a whole shard to save it, and reads a whole shard to load
    one row.
    """

    def __init__(self, size: torch.Size, parts: list[tuple[torch.Size, Tensor]]) -> None:
        """Create it from this rank's parts.

        Args:
            size: Size of the whole tensor.
            parts: (offset of the first element, values) of each part on this rank.
        """
        self._size = size
        self.parts = [(offset, values) for offset, values in parts if values.numel()]

    @classmethod
    def of(cls, value: ShardedTensor) -> ShardedRows:
        """The local shards of `value`, as views."""
        shards = value.local_shards()
        return cls(value.metadata().size, [(torch.Size(s.metadata.shard_offsets), s.tensor) for s in shards])

    def size(self) -> torch.Size:
        """Size of the whole tensor, on every rank."""
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
        """The block that the save planner knows by this offset."""
        return next(values for offset, values in self._blocks() if offset == index.offset)

    def part(self, index: MetadataIndex) -> Tensor:
        """The part that the load planner knows by this offset."""
        return next(values for offset, values in self.parts if offset == index.offset)


def copy_to_host(value: Tensor) -> Tensor:
    """A copy in main memory that shares no storage with `value`."""
    return value.detach().to("cpu", copy=True)


class SavePlanner(DefaultSavePlanner):
    """DCP's planner for a flat dict whose values may be `ShardedRows`."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def lookup_object(self, index: MetadataIndex) -> Any:
        """The values to write for `index`."""
        value = self.state_dict[index.fqn]
        return value.block(index) if isinstance(value, ShardedRows) else super().lookup_object(index)


class LoadPlanner(DefaultLoadPlanner):
    """DCP's planner for a flat dict whose values may be `ShardedRows`; tensors are filled in place."""

    def __init__(self) -> None:
        super().__init__(flatten_state_dict=False, flatten_sharded_tensors=False)

    def set_up_planner(
        self, state_dict: dict[str, Any], metadata: Metadata | None = None, is_coordinator: bool = False
    ) -> None:
        """Keep `state_dict` as it is; DCP's method replaces values of types that it does not know by None."""
        self.state_dict = self.original_state_dict = state_dict
        self.metadata, self.is_coordinator = metadata, is_coordinator

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Replace an entry that is not a tensor; DCP's method would unpickle it.

        Raises:
            ShardingError: It holds more than plain values, or is a tensor here.
        """
        key = read_item.dest_index.fqn
        if isinstance(self.state_dict[key], Tensor | ShardedRows):
            raise ShardingError(f"{key} is a tensor here, and something else in the checkpoint")
        try:
            self.state_dict[key] = read_plain(value)
        except ValueError as error:
            raise ShardingError(f"{key} is refused: {error}") from None

    def lookup_tensor(self, index: MetadataIndex) -> Tensor:
        """The tensor to fill with the values that were read for `index`."""
        value = self.state_dict[index.fqn]
        return value.part(index) if isinstance(value, ShardedRows) else super().lookup_tensor(index)

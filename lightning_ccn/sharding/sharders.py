"""TorchRec's sharders, made to give what the plain collections give.

Three differences are mended or refused here:

- Sharded bags come in the order of the shards, so what `values()` concatenates would change its meaning with the plan
  and the world size. They are put back into the plain collection's order.
- Row-wise bags end in a reduce-scatter, whose backward is an all-gather. For ranks with different numbers of bags
  TorchRec gives it tensors of different sizes, which NCCL takes and gloo refuses ("invalid tensor size"); on gloo
  they are padded. Ranks differ whenever a global batch does not divide by the world size, and always where each
  looks up its own distinct ids.
- A rank whose batch has no row fails in an EmbeddingCollection (plain ones too), and in row-wise bags with mean
  pooling, in obscure words while the other ranks wait: it is told what to do.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchrec import EmbeddingBagCollection, EmbeddingCollection, KeyedJaggedTensor, KeyedTensor
from torchrec.distributed.comm_ops import reduce_scatter_base_pooled
from torchrec.distributed.dist_data import PooledEmbeddingsAwaitable, PooledEmbeddingsReduceScatter
from torchrec.distributed.embedding import EmbeddingCollectionSharder, ShardedEmbeddingCollection
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder, ShardedEmbeddingBagCollection
from torchrec.distributed.sharding.rw_sharding import RwPooledEmbeddingDist
from torchrec.distributed.types import LazyAwaitable, ModuleSharder, ShardingType

from lightning_ccn.sharding.errors import ShardingError

# What TorchRec's planner may choose from; it is offered no row-wise bags on a CPU otherwise, though they run there.
PLACEMENTS = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]


def sharders(fused_params: dict[str, Any]) -> list[ModuleSharder[nn.Module]]:
    """A sharder for each kind of collection, with the fused optimizer's settings."""
    # Each group of tables adds to the dict it is given, so each sharder gets its own.
    return [BagSharder(fused_params=dict(fused_params)), SequenceSharder(fused_params=dict(fused_params))]


class BagSharder(EmbeddingBagCollectionSharder):
    """Shards an EmbeddingBagCollection."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """For TorchRec's planner."""
        return PLACEMENTS

    def shard(self, module: EmbeddingBagCollection, *args: Any, **kwargs: Any) -> ShardedEmbeddingBagCollection:
        """Shard one collection."""
        sharded = super().shard(module, *args, **kwargs)
        for output in sharded._output_dists:
            if isinstance(output, RwPooledEmbeddingDist) and dist.get_backend(output._pg) == "gloo":
                output._dist = PaddedReduceScatter(output._pg)
        if sharded._has_mean_pooling_callback:
            advice = "pool its features by sum, place its tables table_wise, or leave no rank without a row"
            sharded.register_forward_pre_hook(partial(_refuse_empty_batch, advice))
        sharded.register_forward_hook(partial(_restore_order, module._embedding_names))
        return sharded


class SequenceSharder(EmbeddingCollectionSharder):
    """Shards an EmbeddingCollection."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """For TorchRec's planner."""
        return PLACEMENTS

    def shard(self, module: EmbeddingCollection, *args: Any, **kwargs: Any) -> ShardedEmbeddingCollection:
        """Shard one collection."""
        sharded = super().shard(module, *args, **kwargs)
        advice = "look up one row without ids instead (a stride of 1, lengths of 0), or leave no rank without a row"
        sharded.register_forward_pre_hook(partial(_refuse_empty_batch, advice))
        return sharded


class PaddedReduceScatter(PooledEmbeddingsReduceScatter):
    """`PooledEmbeddingsReduceScatter` that pads every rank's bags to the longest."""

    def forward(self, local_embs: Tensor, input_splits: list[int] | None = None) -> PooledEmbeddingsAwaitable:
        """This rank's share of every rank's bags [sum of `input_splits`, dim] -> own bags, summed [own, dim]."""
        if input_splits is None or len(set(input_splits)) == 1:
            return super().forward(local_embs, input_splits)
        padded = pad_sequence(local_embs.split(input_splits), batch_first=True)  # [ranks, longest, dim]
        result = PooledEmbeddingsAwaitable(reduce_scatter_base_pooled(padded.flatten(0, 1), self._pg))
        own = input_splits[dist.get_rank(self._pg)]
        result.callbacks.append(lambda bags: bags[:own])
        return result


def _restore_order(
    names: list[str], _: nn.Module, __: tuple[KeyedJaggedTensor], output: LazyAwaitable[KeyedTensor]
) -> None:
    def reorder(sharded: KeyedTensor) -> KeyedTensor:
        if sharded.keys() == names:
            return sharded
        lengths = dict(zip(sharded.keys(), sharded.length_per_key(), strict=True))
        values = torch.cat([sharded[name] for name in names], dim=1)  # [rows, sum of dims]
        return KeyedTensor(names, [lengths[name] for name in names], values)

    output.callbacks.append(reorder)


def _refuse_empty_batch(advice: str, collection: nn.Module, inputs: tuple[KeyedJaggedTensor]) -> None:
    if inputs[0].stride() == 0:
        raise ShardingError(
            f"this rank's batch has no row for the {type(collection).__name__} of {', '.join(inputs[0].keys())}, "
            f"which TorchRec cannot take: {advice}"
        )

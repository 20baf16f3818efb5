"""TorchRec's sharders, changed so that sharded collections return what the plain ones return.

They differ from TorchRec's in four ways:

- TorchRec returns bags in the order of the shards, so the columns of `values()` would depend on the plan and the world
  size. Here they come in the plain collection's order.
- A row-wise lookup of bags ends in a reduce-scatter, whose backward pass is an all-gather. If ranks have different
  numbers of bags, TorchRec passes it tensors of different sizes. NCCL accepts that and gloo does not ("invalid tensor
  size"), so on gloo the tensors are padded. Ranks differ whenever the world size does not divide the global batch, and
  whenever each rank looks up its own distinct ids.
- A rank whose batch has no row fails in an EmbeddingCollection (also in a plain one), and in row-wise bags with mean
  pooling, with an obscure message while the other ranks wait. Here the error explains the remedy.
- An id outside of its table is found before it is sent to another rank, and named. fbgemm finds it on the rank that
  holds the table, where nobody knows any more who asked for what; and takes -1 for a row that was pruned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
import torch.distributed as dist
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from torchrec import EmbeddingBagCollection, EmbeddingCollection, KeyedJaggedTensor, KeyedTensor
from torchrec.distributed.comm_ops import reduce_scatter_base_pooled
from torchrec.distributed.dist_data import PooledEmbeddingsAwaitable, PooledEmbeddingsReduceScatter
from torchrec.distributed.embedding import EmbeddingCollectionSharder, ShardedEmbeddingCollection
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder, ShardedEmbeddingBagCollection
from torchrec.distributed.fbgemm_qcomm_codec import CommType, QCommsConfig, get_qcomm_codecs_registry
from torchrec.distributed.types import CommOp, LazyAwaitable, ModuleSharder, QuantizedCommCodecs, ShardingType

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.id_check import IdCheck
from lightning_ccn.sharding.torchrec_private import (
    embedding_names,
    pools_by_mean,
    replace_reduce_scatter,
    row_wise_outputs,
)

# What TorchRec's planner may choose from. TorchRec's own sharders offer no row-wise bags on a CPU, though they work.
PLACEMENTS = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]


FUSED, FUSED_UVM = EmbeddingComputeKernel.FUSED.value, EmbeddingComputeKernel.FUSED_UVM_CACHING.value

BoundsCheck = Literal["fatal", "warning", "ignore"]
CommunicationDtype = Literal["fp32", "fp16", "bf16"]


def sharders(
    kernel_arguments: dict[str, Any],
    bounds_check: BoundsCheck = "fatal",
    communication_dtype: CommunicationDtype = "fp32",
    device_type: str = "cpu",
) -> list[ModuleSharder[nn.Module]]:
    """One sharder for each kind of collection.

    Args:
        kernel_arguments: The tables' optimizer, as `TableOptimizer.kernel_arguments` gives it.
        bounds_check: What an id outside of its table does: end the run, or become row 0, with a warning or without.
        communication_dtype: Type in which vectors and gradients travel between ranks.
        device_type: Type of the ranks' devices.
    """
    precision = CommType(communication_dtype)
    codecs = get_qcomm_codecs_registry(QCommsConfig(precision, precision), device=torch.device(device_type))
    made = []
    for sharder in (BagSharder, SequenceSharder):
        # TorchRec adds entries to the dict that a sharder gets, so each sharder gets its own
        arguments = kernel_arguments | {"bounds_check_mode": BoundsCheckMode[bounds_check.upper()]}
        made.append(sharder(fused_params=arguments, qcomm_codecs_registry=codecs))
    return made


def _kernels(device_type: str) -> list[str]:
    """The kernels that TorchRec's planner may choose from."""
    return [FUSED, FUSED_UVM] if device_type == "cuda" else [FUSED]


class BagSharder(EmbeddingBagCollectionSharder):
    """Shards an EmbeddingBagCollection."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The placements that TorchRec's planner may choose."""
        return PLACEMENTS

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """The kernels that TorchRec's planner may choose."""
        return _kernels(compute_device_type)

    def shard(self, module: EmbeddingBagCollection, *args: Any, **kwargs: Any) -> ShardedEmbeddingBagCollection:
        """Shard one collection."""
        sharded = super().shard(module, *args, **kwargs)
        for output, group in row_wise_outputs(sharded):
            if dist.get_backend(group) == "gloo":
                codecs = (self.qcomm_codecs_registry or {}).get(CommOp.POOLED_EMBEDDINGS_REDUCE_SCATTER.name)
                replace_reduce_scatter(output, PaddedReduceScatter(group, codecs))
        if pools_by_mean(sharded):
            advice = "pool its features by sum, place its tables table_wise, or give every rank at least one row"
            _check_before_exchange(sharded, partial(_refuse_empty_batch, advice))
        _check_ids(sharded, self.fused_params, module.embedding_bag_configs())
        sharded.register_forward_hook(partial(_restore_order, embedding_names(module)))
        return sharded


class SequenceSharder(EmbeddingCollectionSharder):
    """Shards an EmbeddingCollection."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        """The placements that TorchRec's planner may choose."""
        return PLACEMENTS

    def compute_kernels(self, sharding_type: str, compute_device_type: str) -> list[str]:
        """The kernels that TorchRec's planner may choose."""
        return _kernels(compute_device_type)

    def shard(self, module: EmbeddingCollection, *args: Any, **kwargs: Any) -> ShardedEmbeddingCollection:
        """Shard one collection."""
        sharded = super().shard(module, *args, **kwargs)
        advice = "look up one row without ids instead (stride 1, lengths 0), or give every rank at least one row"
        _check_before_exchange(sharded, partial(_refuse_empty_batch, advice))
        _check_ids(sharded, self.fused_params, module.embedding_configs())
        return sharded


class PaddedReduceScatter(PooledEmbeddingsReduceScatter):
    """A reduce-scatter that pads every rank's bags to the largest number of bags on any rank."""

    def __init__(self, group: dist.ProcessGroup, codecs: QuantizedCommCodecs | None) -> None:
        super().__init__(group, codecs)
        self.group, self.codecs = group, codecs

    def forward(self, local_embs: Tensor, input_splits: list[int] | None = None) -> PooledEmbeddingsAwaitable:
        """Sum the ranks' shares of the bags, and return this rank's bags.

        Args:
            local_embs: This rank's share of every rank's bags, float [sum of `input_splits`, dim].
            input_splits: Number of bags of each rank.

        Returns:
            An awaitable of this rank's bags, float [own bags, dim].
        """
        if input_splits is None or len(set(input_splits)) == 1:
            return super().forward(local_embs, input_splits)
        padded = pad_sequence(local_embs.split(input_splits), batch_first=True)  # [ranks, largest number, dim]
        result = PooledEmbeddingsAwaitable(reduce_scatter_base_pooled(padded.flatten(0, 1), self.group, self.codecs))
        own = input_splits[dist.get_rank(self.group)]
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
            f"which TorchRec does not support: {advice}"
        )


def _check_ids(sharded: nn.Module, fused_params: dict[str, Any] | None, configs: Sequence[Any]) -> None:
    if (fused_params or {}).get("bounds_check_mode") == BoundsCheckMode.FATAL:
        _check_before_exchange(sharded, IdCheck(configs))


def _check_before_exchange(sharded: Any, check: Callable[[nn.Module, tuple[KeyedJaggedTensor]], None]) -> None:
    """Checks every input before its ids are sent, which may be before the forward pass, see `exchange_ahead`."""
    exchange = sharded.input_dist

    def checked(context: Any, features: KeyedJaggedTensor) -> Any:
        check(sharded, (features,))
        return exchange(context, features)

    sharded.input_dist = checked

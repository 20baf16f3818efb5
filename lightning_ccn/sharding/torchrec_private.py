"""All uses of TorchRec's and torch's private attributes, read in the sources of torchrec 1.6.1, 1.8.0 and 1.9.2.

The attributes are the same in all three versions, except where a function says otherwise. If a newer TorchRec changes
one, only this file needs an update, and `sizes_exchange.py`, whose classes inherit from two of TorchRec's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection
from torchrec.distributed import DistributedModelParallel, collective_utils, dist_data
from torchrec.distributed.dist_data import PooledEmbeddingsReduceScatter
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.sharding.rw_sharding import RwPooledEmbeddingDist
from torchrec.distributed.types import Awaitable


def embedding_names(collection: EmbeddingBagCollection) -> list[str]:
    """Names of the pooled embeddings that a plain collection returns, in its order."""
    names: list[str] = collection._embedding_names
    return names


def pools_by_mean(sharded: ShardedEmbeddingBagCollection) -> bool:
    """Whether a row-wise table is pooled by mean, so TorchRec divides by the bags' lengths."""
    mean: bool = sharded._has_mean_pooling_callback
    return mean


def row_wise_outputs(
    sharded: ShardedEmbeddingBagCollection,
) -> Iterator[tuple[RwPooledEmbeddingDist, dist.ProcessGroup]]:
    """The module that exchanges the bags of each group of row-wise tables, and the process group that it uses."""
    for output in sharded._output_dists:
        if isinstance(output, RwPooledEmbeddingDist):
            yield output, output._pg


def replace_reduce_scatter(output: RwPooledEmbeddingDist, reduce_scatter: PooledEmbeddingsReduceScatter) -> None:
    """Let `output` use another reduce-scatter; TorchRec makes its own at the first batch if there is none."""
    output._dist = reduce_scatter


def kernel_learning_rates(sharded: ShardedEmbeddingBagCollection | ShardedEmbeddingCollection) -> list[float]:
    """The learning rate that each kernel on this rank used last."""
    modules = [module for lookup in sharded._lookups for module in lookup.modules()]
    return [module.get_learning_rate() for module in modules if hasattr(module, "get_learning_rate")]


def forget_cached_rows(sharded: ShardedEmbeddingBagCollection | ShardedEmbeddingCollection) -> None:
    """Let the kernels read every row anew: the rows of a table in host memory were changed there."""
    for lookup in sharded._lookups:
        lookup.purge()


def sharded_parameter_names(module: nn.Module) -> set[str]:
    """Names of the parameters of sharded tables, as in `module.named_parameters()`."""
    return set(DistributedModelParallel._sharded_parameter_names(module))


def forget_first_world() -> None:
    """Let TorchRec treat the next process group as the first one of this process.

    Since 1.8, TorchRec runs one collective operation once per process. If a new group has processes that have run it
    and others that have not, the others would wait for it forever. In 1.6.1 this function has no effect.
    """
    collective_utils._INITIALIZED = False


torchrec_recat = dist_data._get_recat  # as TorchRec has it


def use_recat(recat: Callable[..., Tensor | None]) -> None:
    """Let TorchRec, in this process, order the ids of all ranks by another function than `dist_data._get_recat`."""
    dist_data._get_recat = recat


def use_exchange(ids: Callable[..., Awaitable[Any]], sizes: Callable[..., Awaitable[Any]]) -> None:
    """Let TorchRec, in this process, exchange ids, and their numbers before them, by other classes than its own."""
    dist_data.KJTAllToAllSplitsAwaitable = ids
    dist_data.SplitsAllToAllAwaitable = sizes


def assert_async(condition: Tensor, message: str) -> None:
    """Raise RuntimeError if a bool tensor of one value is false: on a GPU later, without a wait for the answer now."""
    torch._assert_async(condition, message)

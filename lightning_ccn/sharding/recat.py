"""The order in which the ids of all ranks are put together, made without a wait for the GPU.

After an exchange, a rank has its features' ids rank by rank, and needs them feature by feature. TorchRec makes the
index for that anew in each step, as a tensor of Python numbers: a copy for which the host waits until the GPU has done
all it was asked to do. Here the copy starts from page-locked memory, and an index that was made once is kept.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import accumulate

import torch
from torch import Tensor

KEPT = 256  # indices; a model has one for each sharded collection


def recat(
    local_split: int,
    num_splits: int,
    stagger: int = 1,
    device: torch.device | None = None,
    batch_size_per_rank: list[int] | None = None,
) -> Tensor | None:
    """In place of TorchRec's function of the same arguments; equal results.

    Args:
        local_split: Number of features of this rank.
        num_splits: Number of ranks.
        stagger: Number of nodes, where a table is placed on all ranks of one node; else 1.
        device: Where the result is.
        batch_size_per_rank: Number of rows of each rank's batch; None if all are equal.

    Returns:
        int32 [features * ranks] if the batches have equal sizes, else int32 [sum of the ranks' rows * features]; None
        without features.
    """
    if local_split == 0:
        return None
    device = torch.device("cpu") if device is None else device
    sizes = batch_size_per_rank or []
    if len(set(sizes)) <= 1:
        return _kept(local_split, num_splits, stagger, device)
    order = _order(local_split, num_splits, stagger)
    per_feature = [size for size in sizes for _ in range(local_split)]
    starts = [0, *accumulate(per_feature)]
    permuted = [0, *accumulate(per_feature[at] for at in order)]
    numbers = _on_device([*order, *starts, *permuted], device)
    parts = numbers.split([len(order), len(starts), len(permuted)])
    expanded: Tensor = torch.ops.fbgemm.expand_into_jagged_permute(*parts, permuted[-1])
    return expanded


def _order(local_split: int, num_splits: int, stagger: int) -> list[int]:
    ranks = [node + num_splits // stagger * at for node in range(num_splits // stagger) for at in range(stagger)]
    return [feature + rank * local_split for feature in range(local_split) for rank in ranks]


@lru_cache(maxsize=KEPT)
def _kept(local_split: int, num_splits: int, stagger: int, device: torch.device) -> Tensor:
    return _on_device(_order(local_split, num_splits, stagger), device)


def _on_device(numbers: list[int], device: torch.device) -> Tensor:
    on_host = torch.tensor(numbers, dtype=torch.int32)
    if device.type != "cuda":
        return on_host.to(device)
    return on_host.pin_memory().to(device, non_blocking=True)

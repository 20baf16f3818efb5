"""Ids arrive as through TorchRec's own exchange."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from torchrec import KeyedJaggedTensor
from torchrec.distributed import dist_data

from tests.gpu.pretend_gpu import PretendGPU, torchrec_as_on_a_gpu
from tests.sharding.ranks import RankError, on_ranks

RANKS = 3
KEYS = ["item", "user", "tag", "city"]
OWNED = [2, 0, 2]  # features of each rank; one rank has none
Received = tuple[list[str], list[int], list[int], list[float] | None]


def batch(rank: int, rows: int, weighted: bool) -> KeyedJaggedTensor:
    g = torch.Generator().manual_seed(rank)
    lengths = torch.randint(0, 4, (len(KEYS) * rows,), generator=g)
    ids = torch.randint(0, 1_000_000, (int(lengths.sum()),), generator=g)
    return KeyedJaggedTensor(KEYS, ids, torch.rand(len(ids), generator=g) if weighted else None, lengths)


def with_tag(tag: int) -> AbstractContextManager[Any]:
    """Within it, TorchRec sends a number along, which must be the same on every rank."""
    replaced: dict[str, Any] = {
        "validate_collectives_enabled": lambda: True,
        "_collective_tag_from": lambda *_, **__: tag,
    }
    return patch.multiple(dist_data, **replaced)


def exchange(rows: tuple[int, ...], weighted: bool = False, replaced: bool = True, tag: int | None = None) -> Received:
    """What a rank receives; fails if it would send a tensor of the host through NCCL."""
    rank, world_size = int(os.environ["LOCAL_RANK"]), int(os.environ["CCN_TEST_WORLD_SIZE"])
    dist.init_process_group("gloo", rank=rank, world_size=world_size)
    features = batch(rank, rows[rank], weighted)
    with (
        torchrec_as_on_a_gpu() if replaced else nullcontext(),
        nullcontext() if tag is None else with_tag(tag + rank),
        PretendGPU() as mode,
    ):
        mode.put([features.values(), features.lengths(), features.weights_or_none()], "gpu")
        got = dist_data.KJTAllToAll(dist.group.WORLD, OWNED)(features).wait().wait()
    weights = got.weights().tolist() if weighted else None
    return got.keys(), got.lengths().tolist(), got.values().tolist(), weights


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rows", [(5, 5, 5), (4, 0, 7)], ids=str)
def test_ids_arrive_as_through_torchrec(rows: tuple[int, ...], weighted: bool) -> None:
    settings: dict[str, Any] = {"rows": rows, "weighted": weighted}
    ours, theirs = (on_ranks(RANKS, exchange, replaced=replaced, **settings) for replaced in (True, False))
    assert ours == theirs
    assert sum(len(ids) for _, _, ids, _ in ours) == sum(
        len(batch(rank, rows[rank], False).values()) for rank in range(3)
    )


@pytest.mark.skipif(not hasattr(dist_data, "_collective_tag_from"), reason="TorchRec 1.6 has no tags")
def test_ranks_that_run_different_operations_are_found() -> None:
    with pytest.raises(RankError, match="All2All collective mismatch detected"):
        on_ranks(RANKS, exchange, rows=(5, 5, 5), tag=7)

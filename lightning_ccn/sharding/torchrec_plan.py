"""Plans in TorchRec's types, and those that its planner makes."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
from torchrec.distributed.planner.types import PlannerError
from torchrec.distributed.sharding_plan import (
    ParameterShardingGenerator,
    column_wise,
    construct_module_sharding_plan,
    row_wise,
    table_wise,
)
from torchrec.distributed.types import ShardingPlan, ShardingType

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.plan import (
    UVM,
    Automatic,
    Plan,
    leaves_a_rank_empty,
    make_plan,
    refuse_uvm,
    split_placement,
)
from lightning_ccn.sharding.sharders import FUSED, FUSED_UVM, sharders
from lightning_ccn.sharding.tables import collections, find_tables


def torchrec_placement(
    module: nn.Module,
    world_size: int,
    local_size: int,
    device: torch.device,
    batch: int | None = None,
    gpu_memory: int | None = None,
) -> dict[str, str]:
    """The placement that TorchRec's planner chooses for every table of `module`, in the notation of a plan.

    Args:
        module: The module, whose tables are plain collections.
        world_size: Number of ranks.
        local_size: Number of ranks on a machine.
        device: This rank's device; its memory is the limit if it is a GPU.
        batch: Rows of a rank's batch; TorchRec assumes 512 if None.
        gpu_memory: Bytes of each GPU's memory; None asks `device`, which must be there.

    Raises:
        ShardingError: The planner finds no plan, because the tables do not fit, for example.
    """
    if device.type != "cuda":
        gpu_memory = None
    elif gpu_memory is None:
        gpu_memory = torch.cuda.get_device_properties(device).total_memory
    try:
        with _without_advice():
            topology = Topology(
                world_size=world_size, local_world_size=local_size, compute_device=device.type, hbm_cap=gpu_memory
            )
            chosen = EmbeddingShardingPlanner(topology=topology, batch_size=batch).plan(module, sharders({}))
    except PlannerError as error:
        reason = " ".join(str(error).split())
        raise ShardingError(f"trainer.strategy.automatic is torchrec: its planner finds no plan: {reason}") from error
    tiny = {table.name for table in find_tables(module) if leaves_a_rank_empty(table.rows, world_size)}
    placement = {}
    for module_plan in chosen.plan.values():
        for name, sharding in module_plan.items():
            kind = sharding.sharding_type
            if kind == ShardingType.TABLE_WISE.value:
                kind = f"table_wise:{sharding.ranks[0]}"
            elif kind == ShardingType.ROW_WISE.value and name in tiny:
                kind = "table_wise"
            placement[name] = kind + (UVM if sharding.compute_kernel == FUSED_UVM else "")
    return placement


@contextmanager
def _without_advice() -> Iterator[None]:
    """Hides what TorchRec's planner says to programmers in each call; its errors are raised."""
    logger = logging.getLogger("torchrec.distributed.planner")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "HeuristicalStorageReservation", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def torchrec_plan(module: nn.Module, plan: Plan, local_size: int, device: torch.device) -> ShardingPlan:
    """`plan` in TorchRec's types, for `DistributedModelParallel`."""
    by_type = {sharder.module_type: sharder for sharder in sharders({})}
    result = {}
    for path, collection, child in collections(module):
        result[path] = construct_module_sharding_plan(
            collection,
            {name: _generator(plan.placement[name], plan.world_size) for name in getattr(collection, child)},
            sharder=by_type[type(collection)],
            local_size=local_size,
            world_size=plan.world_size,
            device_type=device.type,
        )
    return ShardingPlan(plan=result)


def _generator(placement: str, world_size: int) -> ParameterShardingGenerator:
    kind, rank, uvm = split_placement(placement)
    kernel = FUSED_UVM if uvm else FUSED
    if kind == "row_wise":
        return row_wise(compute_kernel=kernel)
    if kind == "table_wise":
        return table_wise(rank=int(rank), compute_kernel=kernel)
    return column_wise(ranks=list(range(world_size)), compute_kernel=kernel)


def module_plan(
    module: nn.Module,
    world_size: int,
    local_size: int,
    device: torch.device,
    optimizer: str,
    wanted: Mapping[str, str] | None,
    automatic: Automatic,
    planner_batch: int | None = None,
    gpu_memory: int | None = None,
) -> Plan:
    """The plan for `module`. It depends on the arguments only, so it is the same on every rank.

    Without ranks, give `gpu_memory`, see `torchrec_placement`.

    Raises:
        ShardingError: The plan cannot work.
    """
    tables = find_tables(module)
    chosen = dict(wanted or {})
    refuse_uvm(chosen, device.type)
    if automatic == "torchrec":
        chosen = torchrec_placement(module, world_size, local_size, device, planner_batch, gpu_memory) | chosen
    return make_plan(tables, world_size, optimizer, chosen)

"""Wraps a module in TorchRec's `DistributedModelParallel`."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
from torchrec.distributed.types import ShardedModule

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.plan import Plan
from lightning_ccn.sharding.recat import recat
from lightning_ccn.sharding.sharders import BoundsCheck, CommunicationDtype, sharders
from lightning_ccn.sharding.sizes_exchange import ExchangeOfIds, ExchangeOfSizes
from lightning_ccn.sharding.table_optimizers import find_table_optimizer
from lightning_ccn.sharding.tables import draw_rows, initial_rows
from lightning_ccn.sharding.torchrec_plan import torchrec_plan
from lightning_ccn.sharding.torchrec_private import sharded_parameter_names, use_exchange, use_recat


def refuse_sharded(module: nn.Module) -> None:
    """Refuse a module that another strategy has sharded.

    Raises:
        ShardingError: The module holds sharded tables.
    """
    if any(isinstance(child, ShardedModule) for child in module.modules()):
        raise ShardingError(
            "the module's tables are already sharded by another strategy: call fit, validate, test and predict on "
            "one Trainer, or create a new module and load a checkpoint into it"
        )


def wrap(
    module: nn.Module,
    plan: Plan,
    device: torch.device,
    local_size: int,
    lr: float,
    eps: float,
    find_unused_parameters: bool,
    seed: int,
    bounds_check: BoundsCheck,
    communication_dtype: CommunicationDtype,
) -> DistributedModelParallel:
    """Shard the tables of `module` in place, initialise their rows, and replicate the other parameters with DDP.

    The process group must exist. `module.parameters()` still lists the tables, as parameters without gradients.

    Args:
        module: The module, whose tables are plain TorchRec collections.
        plan: The placement of every table, and the tables' optimizer.
        device: This rank's device.
        local_size: Number of ranks on this machine.
        lr: The tables' learning rate.
        eps: Epsilon of the tables' optimizer.
        find_unused_parameters: As in `DistributedDataParallel`.
        seed: Seed of the tables' initial rows, the same on every rank.
        bounds_check: What an id outside of its table does, see `sharding.sharders`.
        communication_dtype: Type in which vectors and gradients travel.
    """
    if device.type == "cuda":
        wait_less(device)
    start = initial_rows(module)
    arguments = find_table_optimizer(plan.optimizer).kernel_arguments(lr, eps)
    # How many random numbers TorchRec draws here depends on the world size: keep the caller's generators unchanged.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        dmp = DistributedModelParallel(
            module,
            device=device,
            plan=torchrec_plan(module, plan, local_size, device),
            sharders=sharders(arguments, bounds_check, communication_dtype, device.type),
            data_parallel_wrapper=_Replicas(static_graph=False, find_unused_parameters=find_unused_parameters),
        )
    draw_rows(module, start, seed)
    return dmp


def wait_less(device: torch.device) -> None:
    """Let TorchRec, in this process, exchange ids with fewer waits for the GPU; its results stay equal."""
    use_recat(recat)
    use_exchange(ExchangeOfIds, partial(ExchangeOfSizes, device=device))


class _Replicas(DefaultDataParallelWrapper):
    """Replicates the other parameters with DDP, which cannot wrap a module without trainable parameters."""

    def wrap(self, dmp: DistributedModelParallel, env: Any, device: torch.device) -> None:
        sharded = sharded_parameter_names(dmp.module)
        if any(p.requires_grad for name, p in dmp.named_parameters() if name not in sharded):
            super().wrap(dmp, env, device)
        else:
            dmp.module.to(device)


def reset_table_state(dmp: DistributedModelParallel) -> None:
    """Set all state of the tables' optimizer to zero."""
    for states in dmp.fused_optimizer.state_dict()["state"].values():
        for value in states.values():
            for shard in value.local_shards():
                shard.tensor.zero_()

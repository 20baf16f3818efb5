"""Wrapping a module in `DistributedModelParallel`."""

from __future__ import annotations

from typing import Any

import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
from torchrec.distributed.types import ShardedModule

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.plan import Plan, torchrec_plan
from lightning_ccn.sharding.sharders import sharders
from lightning_ccn.sharding.tables import draw_rows, initial_rows

# Those that fbgemm offers on CPU and GPU alike; the exact ones add up a row's gradients before its one update.
FUSED = {
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "sgd": EmbOptimType.EXACT_SGD,
}


def refuse_sharded(module: nn.Module) -> None:
    """Raise a ShardingError if somebody else has sharded the module."""
    if any(isinstance(child, ShardedModule) for child in module.modules()):
        raise ShardingError(
            "the module's tables are already sharded by another strategy: call fit, validate, test and predict on "
            "one Trainer, or make a new module and load a checkpoint into it"
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
) -> DistributedModelParallel:
    """Shard `module`'s tables in place by `plan` and draw their rows; replicate the rest with DDP.

    The process group must exist. `module.parameters()` still lists the tables, as parameters without gradients.
    """
    start = initial_rows(module)
    # What TorchRec draws depends on the world size; the caller's stream of random numbers must not.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        dmp = DistributedModelParallel(
            module,
            device=device,
            plan=torchrec_plan(module, plan, local_size, device),
            sharders=sharders({"optimizer": FUSED[plan.optimizer], "learning_rate": lr, "eps": eps}),
            data_parallel_wrapper=_Replicas(static_graph=False, find_unused_parameters=find_unused_parameters),
        )
    draw_rows(module, start, seed)
    return dmp


class _Replicas(DefaultDataParallelWrapper):
    """DDP for the replicated part; DDP refuses to wrap one of which nothing is trained."""

    def wrap(self, dmp: DistributedModelParallel, env: Any, device: torch.device) -> None:
        sharded = set(DistributedModelParallel._sharded_parameter_names(dmp.module))
        if any(p.requires_grad for name, p in dmp.named_parameters() if name not in sharded):
            super().wrap(dmp, env, device)
        else:
            dmp.module.to(device)


def reset_table_state(dmp: DistributedModelParallel) -> None:
    """Zero the fused optimizer's state."""
    for states in dmp.fused_optimizer.state_dict()["state"].values():
        for value in states.values():
            for shard in value.local_shards():
                shard.tensor.zero_()

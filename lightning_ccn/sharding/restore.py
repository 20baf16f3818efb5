"""Loading a checkpoint into a sharded module, whose world size, plan and kernels may differ from the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torchrec.distributed import DistributedModelParallel

from lightning_ccn.sharding.checkpoint import load_tensors
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.manifest import saved_shapes
from lightning_ccn.sharding.plan import Plan
from lightning_ccn.sharding.state import (
    differences,
    module_state,
    random_state,
    restore_optimizer,
    shapes,
    table_optimizer_shapes,
    table_optimizer_state,
)
from lightning_ccn.sharding.tables import dense_names


def load_module(
    module: nn.Module, path: Path, manifest: Mapping[str, Any], strict: bool, group: dist.ProcessGroup
) -> None:
    """Load the tables and layers of a sharded module in place.

    Raises:
        ShardingError: Entries are missing on either side or differ in shape; the message lists them all. Without
            `strict`, a warning lists them, and those of the module keep their values.
    """
    state = module_state(module, module.state_dict())
    here, saved = shapes(state), saved_shapes(manifest)
    there = {
        key: shape
        for key, shape in saved.items()
        if key.startswith("module.") or (key.startswith("tables.") and key.endswith(".weight"))
    }
    if lines := differences(here, there):
        text = f"checkpoint {path} does not fit the module:\n  " + "\n  ".join(lines)
        if strict:
            raise ShardingError(text)
        rank_zero_warn(text)
        state = {key: value for key, value in state.items() if here.get(key) == there.get(key)}
    tensors = shapes(state).keys()
    load_tensors(path, state, group)
    for key, value in state.items():
        if key not in tensors and key.endswith("._extra_state"):
            owner = key.removeprefix("module.").removesuffix("_extra_state").removesuffix(".")
            module.get_submodule(owner).set_extra_state(value)


def load_optimizers(
    module: nn.Module,
    dmp: DistributedModelParallel,
    plan: Plan,
    table_lr: float,
    optimizers: Sequence[Optimizer],
    groups: Sequence[list[dict[str, Any]]],
    path: Path,
    manifest: Mapping[str, Any],
    group: dist.ProcessGroup,
) -> None:
    """Load the state of the tables' optimizer and of the module's optimizers in place.

    Args:
        module: The sharded module.
        dmp: Its wrapper.
        plan: Its plan.
        table_lr: Learning rate of the tables at the start of the schedule.
        optimizers: The module's optimizers.
        groups: Parameter groups of each of them in the checkpoint, from `state.optimizer_state`.
        path: The checkpoint.
        manifest: Its manifest.
        group: A gloo group of all ranks.

    Raises:
        ShardingError: The tables' optimizer, a learning rate, the size of a table or the grouping of parameters
            differs.
    """
    if manifest["table_optimizer"] != plan.optimizer:
        raise ShardingError(
            f"table_optimizer is {plan.optimizer} here and {manifest['table_optimizer']} in checkpoint {path}: "
            "resume with the same optimizer, or load only the weights"
        )
    _check_rates(table_lr, optimizers, groups, path, manifest)
    saved, wanted = saved_shapes(manifest), table_optimizer_shapes(plan)
    if lines := differences(wanted, {key: saved[key] for key in wanted.keys() & saved.keys()}):
        raise ShardingError(f"checkpoint {path} does not fit the tables:\n  " + "\n  ".join(lines))
    tables: dict[str, Any] = dict(table_optimizer_state(module, dmp))
    dense = {
        key: torch.empty(shape, dtype=getattr(torch, manifest["tensors"][key]["dtype"]))
        for key, shape in saved.items()
        if key.startswith("optimizer.")
    }
    load_tensors(path, tables | dense, group)
    for optimizer, saved_groups in zip(optimizers, groups, strict=True):
        restore_optimizer(optimizer, dense_names(module), dense, saved_groups)


def _check_rates(
    table_lr: float,
    optimizers: Sequence[Optimizer],
    groups: Sequence[list[dict[str, Any]]],
    path: Path,
    manifest: Mapping[str, Any],
) -> None:
    """Checks that tables and layers start their schedule with the checkpoint's rates.

    Otherwise the tables would follow the new rate, and the layers, whose rate is in the checkpoint, the old one.
    """
    rates = [("table_lr", manifest.get("table_lr", table_lr), table_lr)]
    for optimizer, saved_groups in zip(optimizers, groups, strict=True):
        for here, saved in zip(optimizer.param_groups, saved_groups, strict=False):  # another grouping is refused later
            if "initial_lr" in here and "initial_lr" in saved:  # of a scheduled rate
                rates.append(("the layers' learning rate", saved["initial_lr"], here["initial_lr"]))
    for name, saved_rate, rate in rates:
        if saved_rate != rate:
            raise ShardingError(
                f"{name} is {rate} here and {saved_rate} in checkpoint {path}: resume with the same rates, or load "
                "only the weights"
            )


def load_random_state(
    rank: int, device: torch.device, path: Path, manifest: Mapping[str, Any], group: dist.ProcessGroup
) -> dict[str, Tensor]:
    """State of this rank's random generators, as `random_state` returned it."""
    saved = saved_shapes(manifest)
    state = {key: value for key, value in random_state(rank, device).items() if key in saved}
    load_tensors(path, state, group)
    return state

"""The content of a checkpoint, under names that do not depend on the run that wrote it.

| key | value |
| --- | --- |
| `tables.<name>.weight` | a table, for any kernel and any plan |
| `tables.<name>.optimizer.<state>` | state of the table optimizer, see `sharding.table_optimizers` |
| `module.<name in the state dict>` | any other entry of the module's state dict |
| `optimizer.<parameter>.<state>` | state of the module's optimizer |
| `random.<rank>.<device>` | random generators of each rank, for a run with the same world size |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.types import ShardedTensor

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.plan import Plan
from lightning_ccn.sharding.sharded_rows import ShardedRows
from lightning_ccn.sharding.table_optimizers import find_table_optimizer
from lightning_ccn.sharding.tables import table_keys

Shapes = Mapping[str, tuple[int, ...]]


def module_state(module: nn.Module, state_dict: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`state_dict` of `module` under the names of a checkpoint, in the same order; sharded tables as `ShardedRows`.

    Args:
        module: The module.
        state_dict: Its state dict.
        prefix: Put before the module's own names, but not before the tables'.
    """
    keys = table_keys(module)
    return {
        keys.get(name, f"module.{prefix}{name}"): ShardedRows.of(value) if isinstance(value, ShardedTensor) else value
        for name, value in state_dict.items()
    }


def table_optimizer_state(module: nn.Module, dmp: DistributedModelParallel) -> dict[str, ShardedRows]:
    """State of the table optimizer, for the tables that have rows on this rank."""
    keys = table_keys(module)
    state = {}
    for name, values in dmp.fused_optimizer.state_dict()["state"].items():
        for key, value in values.items():
            table = keys[name].removesuffix(".weight")
            state[f"{table}.optimizer.{key.rpartition('.')[2]}"] = ShardedRows.of(value)
    return state


def table_optimizer_shapes(plan: Plan) -> dict[str, tuple[int, ...]]:
    """Shape of every state tensor of the table optimizer, over all ranks."""
    optimizer = find_table_optimizer(plan.optimizer)
    return {
        f"tables.{table.name}.optimizer.{name}": shape
        for table in plan.tables
        for name, shape in optimizer.state_shapes(table.rows, table.dim).items()
    }


def optimizer_state(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]
) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The state of the module's optimizer: its tensors by name in a checkpoint, and its parameter groups.

    Each group has its options, the names of its parameters as `params`, and state that is not a tensor as `state`.
    """
    tensors: dict[str, Tensor] = {}
    groups = []
    for group in optimizer.param_groups:
        plain: dict[str, dict[str, Any]] = {}
        for parameter in group["params"]:
            name = names[parameter]
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{name}.{key}"] = value
                else:
                    plain.setdefault(name, {})[key] = value
        options = {key: value for key, value in group.items() if key != "params"}
        groups.append(options | {"params": [names[p] for p in group["params"]], "state": plain})
    return tensors, groups


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Mapping[Tensor, str],
    tensors: Mapping[str, Tensor],
    groups: list[dict[str, Any]],
) -> None:
    """Load what `optimizer_state` returned into an optimizer of the same parameters.

    Raises:
        ShardingError: The parameters are grouped in another way.
    """
    here = [[names[p] for p in group["params"]] for group in optimizer.param_groups]
    there = [group["params"] for group in groups]
    if here != there:
        lines = [
            f"  group {i}: {', '.join(a or ['none'])} here; {', '.join(b or ['none'])} in the checkpoint"
            for i, (a, b) in enumerate(_zip_all(here, there))
            if a != b
        ]
        raise ShardingError(
            "configure_optimizers does not group the parameters as the checkpoint does:\n"
            + "\n".join(lines)
            + "\nrestore the grouping, or load only the weights, which restarts the optimizer"
        )
    state: dict[int, dict[str, Any]] = {}
    number = {name: i for i, name in enumerate(name for group in here for name in group)}
    for name, i in number.items():
        prefix = f"optimizer.{name}."
        found: dict[str, Any] = {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix) and "." not in key.removeprefix(prefix)
        }
        for group in groups:
            found |= group["state"].get(name, {})
        if found:
            state[i] = found
    options = [
        {k: v for k, v in group.items() if k != "state"} | {"params": [number[n] for n in group["params"]]}
        for group in groups
    ]
    optimizer.load_state_dict({"state": state, "param_groups": options})


def _zip_all(a: list[list[str]], b: list[list[str]]) -> list[tuple[list[str], list[str]]]:
    length = max(len(a), len(b))
    return list(zip(a + [[]] * (length - len(a)), b + [[]] * (length - len(b)), strict=True))


def shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor in `state`."""
    return {key: tuple(value.size()) for key, value in state.items() if isinstance(value, ShardedRows | Tensor)}


def differences(here: Shapes, there: Shapes) -> list[str]:
    """One line for each entry that only the model or only the checkpoint has, or that differs in shape."""
    lines = []
    for key in sorted(here.keys() | there.keys()):
        kind, _, name = key.partition(".")
        if kind == "tables":
            table, _, part = name.partition(".")
            name = f"table {table!r}" + ("" if part == "weight" else f" {part.replace('.', ' ')}")
        a, b = here.get(key), there.get(key)
        if b is None:
            lines.append(f"{name}: missing in the checkpoint; here {_shape(a)}")
        elif a is None:
            lines.append(f"{name}: missing here; in the checkpoint {_shape(b)}")
        elif a != b and kind == "tables" and a[1:] == b[1:]:
            lines.append(f"{name}: rows differ, {a[0]:,} here, {b[0]:,} in the checkpoint")
        elif a != b:
            lines.append(f"{name}: {_shape(a)} here, {_shape(b)} in the checkpoint")
    return lines


def _shape(shape: tuple[int, ...] | None) -> str:
    return " x ".join(f"{n:,}" for n in shape) if shape else "a single value"


def random_state(rank: int, device: torch.device) -> dict[str, Tensor]:
    """State of this rank's random generators: of the CPU, and of `device` if it is a GPU."""
    state = {f"random.{rank}.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state[f"random.{rank}.cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` returned."""
    for key, value in state.items():
        if key.endswith(".cpu"):
            torch.set_rng_state(value)
        else:
            torch.cuda.set_rng_state(value, device)

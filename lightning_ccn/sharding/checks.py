"""Rejects settings that do not work with sharded tables, which are updated in the backward pass."""

from __future__ import annotations

from typing import get_args

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.saver import OnFailedSave
from lightning_ccn.sharding.sharders import BoundsCheck, CommunicationDtype

PRECISIONS = ("32-true", "bf16-mixed")
_FLOAT = torch.finfo(torch.float32)  # what the kernels compute with
_CHOICES = {"bounds_check": get_args(BoundsCheck), "communication_dtype": get_args(CommunicationDtype)}
_LONGEST = 1e9  # seconds; torch keeps a timeout in 64 bits of nanoseconds


def check_arguments(table_lr: float, table_eps: float, timeout_seconds: float, on_failed_save: str) -> None:
    """Check the numbers of a strategy, and the choice that decides whether a failed save ends the run.

    Raises:
        ShardingError: A value cannot work; the message names it as an option of the command line.
    """
    option = "trainer.strategy"
    if not 0 <= table_lr <= _FLOAT.max:
        raise ShardingError(
            f"{option}.table_lr is {table_lr}: a rate is a number from 0 up, such as 0.05 (0 freezes the tables)"
        )
    if not _FLOAT.tiny <= table_eps <= _FLOAT.max:
        raise ShardingError(
            f"{option}.table_eps is {table_eps}: it must be above 0 (in single precision), such as 1e-8; without it, a "
            "row that was looked up and got no gradient would become NaN"
        )
    if not 0.001 <= timeout_seconds <= _LONGEST:
        raise ShardingError(
            f"{option}.timeout_seconds is {timeout_seconds}: it must be above 0, and long enough for the slowest step, "
            "such as 600"
        )
    if on_failed_save not in get_args(OnFailedSave):
        raise ShardingError(
            f"{option}.on_failed_save is {on_failed_save!r}: choose one of {', '.join(get_args(OnFailedSave))}"
        )


def check_choices(**chosen: str) -> None:
    """Check options that are one of several words.

    Raises:
        ShardingError: A word is not known; the message names the option as that of the command line.
    """
    for name, value in chosen.items():
        if value not in (known := _CHOICES[name]):
            raise ShardingError(f"trainer.strategy.{name} is {value!r}: choose one of {', '.join(known)}")


def check_planner_batch(rows: int | None, automatic: str) -> None:
    """Check the size of a batch that TorchRec's planner shall assume.

    Raises:
        ShardingError: It is not positive, or the plan comes from elsewhere.
    """
    if rows is None:
        return
    if automatic != "torchrec":
        raise ShardingError(
            f"trainer.strategy.planner_batch is {rows}: only TorchRec's planner uses it; leave it out, or set "
            "trainer.strategy.automatic to torchrec"
        )
    if rows < 1:
        raise ShardingError(f"trainer.strategy.planner_batch is {rows}: a rank's batch has at least 1 row")


def check_device(device_type: str, communication_dtype: str, tf32: bool) -> None:
    """Check options that need a GPU.

    Raises:
        ShardingError: An option cannot work on this type of device.
    """
    if device_type == "cuda":
        return
    if communication_dtype == "bf16":
        raise ShardingError(
            "trainer.strategy.communication_dtype is bf16: gloo, which connects CPUs, exchanges fp32 and fp16 only; "
            "use fp16"
        )
    if tf32:
        raise ShardingError("trainer.strategy.tf32 is true: only GPUs compute in TF32; leave it out on a CPU")


def check_settings(trainer: Trainer, module: LightningModule) -> None:
    """Check the Trainer's settings and the module; warn about gradient clipping.

    Raises:
        ShardingError: A setting does not work; the message says why, and what to use instead.
    """
    precision = trainer.precision_plugin.precision
    if precision not in PRECISIONS:
        why = "the tables and the layers would have different dtypes"
        if precision == "16-mixed":
            why = "the tables would be updated with the scaled gradients"
        raise ShardingError(
            f"precision={precision}: {why}; use {' or '.join(PRECISIONS)} (for tables in half precision, set "
            "data_type to DataType.FP16 in their configs)"
        )
    if trainer.state.fn != TrainerFn.FITTING:
        return
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    scheduled = any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks)
    if trainer.accumulate_grad_batches > 1 or scheduled:
        raise ShardingError(
            f"accumulate_grad_batches={trainer.accumulate_grad_batches}: tables are updated in every backward "
            "pass, so their gradients cannot be accumulated; use larger batches"
        )
    if not module.automatic_optimization:
        raise ShardingError(
            "automatic_optimization=False: the layers' gradients would not be averaged over the ranks; use automatic "
            "optimization with one optimizer"
        )
    if trainer.gradient_clip_val:
        rank_zero_warn(
            f"gradient_clip_val={trainer.gradient_clip_val} clips the layers only: the tables are updated in the "
            "backward pass, before any clipping, and the norm does not include their gradients"
        )


def check_optimizer(optimizer: Optimizer) -> None:
    """Check an optimizer that `configure_optimizers` returned.

    Raises:
        ShardingError: It holds parameters from before the sharding, or has a schedule that the tables cannot follow.
    """
    if any(p.is_meta for group in optimizer.param_groups for p in group["params"]):
        raise ShardingError(
            "the optimizer holds parameters on the meta device, taken before the module was sharded: create it in "
            "configure_optimizers, from self.parameters()"
        )
    if optimizer.param_groups and optimizer.param_groups[0].get("initial_lr") == 0:
        raise ShardingError(
            "the first parameter group has lr 0 at the start of its schedule, so the tables' rate, table_lr * lr / "
            "initial_lr, is undefined: give the optimizer its full lr, and let the scheduler scale it"
        )

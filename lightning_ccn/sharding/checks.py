"""What cannot work with tables that are sharded and updated in the backward pass: refused before anything runs."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from lightning_ccn.sharding.errors import ShardingError

PRECISIONS = ("32-true", "bf16-mixed")


def refuse_what_cannot_work(trainer: Trainer, module: LightningModule) -> None:
    """Check the trainer's settings and the module; gradient clipping gets a warning.

    Raises:
        ShardingError: with the setting, why it cannot work, and what to do instead.
    """
    precision = trainer.precision_plugin.precision
    if precision not in PRECISIONS:
        why = "the tables and the layers would differ in type"
        if precision == "16-mixed":
            why = "the tables would be updated with the scaled gradients"
        raise ShardingError(
            f"precision={precision}: {why}; use {' or '.join(PRECISIONS)} (for tables in half precision set the "
            "data_type of their configs)"
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
            "automatic_optimization=False: the layers' gradients would not be averaged over ranks; use automatic "
            "optimization with one optimizer"
        )
    if trainer.gradient_clip_val:
        rank_zero_warn(
            f"gradient_clip_val={trainer.gradient_clip_val} clips the layers only: the tables are updated in the "
            "backward pass, before any clipping, and their gradients are not in the norm"
        )


def check_optimizer(optimizer: Optimizer) -> None:
    """Check what `configure_optimizers` returned.

    Raises:
        ShardingError: it holds parameters from before the sharding, or a schedule that the tables cannot follow.
    """
    if any(p.is_meta for group in optimizer.param_groups for p in group["params"]):
        raise ShardingError(
            "the optimizer holds parameters on the meta device, taken before the module was sharded: make it in "
            "configure_optimizers, from self.parameters()"
        )
    if optimizer.param_groups and optimizer.param_groups[0].get("initial_lr") == 0:
        raise ShardingError(
            "the first parameter group has lr 0 at the start of its schedule, and the tables' rate is table_lr * "
            "lr / initial_lr: give the optimizer its full lr, and let the scheduler scale it"
        )

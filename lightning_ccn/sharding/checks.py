"""What cannot work under sharded tables with fused optimizers, refused in words before anything runs."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from lightning_ccn.sharding.errors import ShardingError

PRECISIONS = ("32-true", "bf16-mixed")


def refuse_what_cannot_work(trainer: Trainer, module: LightningModule) -> None:
    """Check the trainer's settings and the module.

    Raises:
        ShardingError: with the setting, why it cannot work, and what to do instead.
    """
    if trainer.precision_plugin.precision not in PRECISIONS:
        raise ShardingError(
            f"precision={trainer.precision_plugin.precision!r}: "
            + (
                "the tables' optimizer would apply the scaled gradients"
                if trainer.precision_plugin.precision == "16-mixed"
                else "the tables' kernels and the dense layers would differ in type"
            )
            + f"; use one of {', '.join(PRECISIONS)} (tables in half precision: data_type of their configs)"
        )
    if trainer.state.fn != TrainerFn.FITTING:
        return
    scheduled = any(isinstance(c, GradientAccumulationScheduler) for c in trainer.callbacks)
    if trainer.accumulate_grad_batches > 1 or scheduled:
        raise ShardingError(
            "accumulate_grad_batches > 1: the tables are updated inside every backward pass, so their gradients cannot "
            "be accumulated; use larger batches"
        )
    if not module.automatic_optimization:
        raise ShardingError(
            "automatic_optimization=False: gradients of the replicated layers would not be averaged over ranks; return "
            "one optimizer from configure_optimizers"
        )
    if trainer.gradient_clip_val:
        rank_zero_warn(
            f"gradient_clip_val={trainer.gradient_clip_val} clips the replicated layers only: the tables are updated "
            "inside the backward pass, before any clipping, and their gradients are not in the norm"
        )

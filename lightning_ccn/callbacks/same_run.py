"""A run that continues is the same run: its checkpoints keep the options that decide what it learns."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_warn

from lightning_ccn.errors import OptionError
from lightning_ccn.module import CTRModule

KEY = "options"  # in a checkpoint
STEPS = "schedule_steps"  # in a checkpoint
# Options that decide what is learned from which page, and those among them that do not. Callbacks are left out: most
# only look on, and those that do more, such as EarlyStopping, end a run as trainer.max_steps does.
DECIDING = (
    "seed_everything",
    "model",
    "data",
    "trainer.precision",
    "trainer.plugins",  # such as one for another precision
    "trainer.accumulate_grad_batches",
    "trainer.gradient_clip_val",
    "trainer.gradient_clip_algorithm",
    "trainer.limit_train_batches",
    "trainer.overfit_batches",
    "trainer.strategy.init_args.table_optimizer",
    "trainer.strategy.init_args.table_lr",
    "trainer.strategy.init_args.table_eps",
    "trainer.strategy.init_args.communication_dtype",
    "trainer.strategy.init_args.tf32",
)
# The data may lie elsewhere: their digests are compared.
NOT_DECIDING = (
    "data.folder",
    "data.cache",
    "data.workers",
    "data.evaluation_factor",
    "data.predict_split",
    "data.same_ids",
    "data.lanes",
    "model.compile_layers",
    "model.cold_below",
)
PRECISIONS = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed", "64": "64-true"}  # Lightning's short forms


class SameRun(L.Callback):
    """Adds the options that decide what a run learns to its checkpoints, and the length of its default schedule.

    The length may change, by trainer.max_steps or max_epochs: a run that has ended can be trained on. But the learning
    rate falls over the length, so it is then not that of any one run, and a warning says so.

    Args:
        options: All options of the run, as plain values.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = deciding(options)
        self._saved_steps: float | None = None

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Adds the options and the length."""
        checkpoint[KEY] = self.options
        if (steps := _schedule_steps(trainer, pl_module)) is not None:
            checkpoint[STEPS] = steps

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Keeps the length until that of now is known."""
        self._saved_steps = checkpoint.get(STEPS)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warns if the length has changed."""
        before, now = self._saved_steps, _schedule_steps(trainer, pl_module)
        self._saved_steps = None
        if before is not None and now is not None and before != now:
            assert isinstance(pl_module, CTRModule)
            falls = "the learning rate" if pl_module.lr_scheduler is None else "model.auxiliary_start"
            rank_zero_warn(
                f"{falls} was that of {_run_of(before)}, and is that of {_run_of(now)} from step "
                f"{trainer.global_step:,} on, because trainer.max_steps or trainer.max_epochs has changed: the model "
                "will be neither that of the one nor that of the other"
            )


def _run_of(steps: float) -> str:
    return f"a run of {int(steps):,} steps" if math.isfinite(steps) else "a run without an end"


def _schedule_steps(trainer: L.Trainer, module: L.LightningModule) -> float | None:
    """Steps that the run's schedules depend on, infinity without an end; None if nothing depends on them."""
    if not isinstance(module, CTRModule) or (module.lr_scheduler is not None and module.auxiliary_start == 1):
        return None
    return float(trainer.estimated_stepping_batches)


def deciding(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that decide what a run learns, by their full name.

    >>> deciding({"model": {"lr": 0.1}, "data": {"seed": 0, "workers": 1}, "runs": "runs"})
    {'model.lr': 0.1, 'data.seed': 0}
    """
    found = {
        name: value
        for name, value in _flat(options)
        if _is_one_of(name, DECIDING) and not _is_one_of(name, NOT_DECIDING)
    }
    if "trainer.precision" in found:
        precision = str(found["trainer.precision"] or "32-true")
        found["trainer.precision"] = PRECISIONS.get(precision, precision)
    return found


def check_same_run(checkpoint: Path, saved: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Checks that a run continues with the options that it started with.

    Args:
        checkpoint: The checkpoint that it continues from.
        saved: The trainer's part of the checkpoint.
        options: All options of the run now, as plain values.

    Raises:
        OptionError: An option differs. Training would be a mixture of two runs, and config.yaml would describe neither.
    """
    before, now = saved.get(KEY), deciding(options)
    if before is None:  # of 0.1.0, or of a program that has no options
        return
    lines = [f"{name} was {before.get(name)}, and is {now.get(name)}" for name in _differing(before, now)]
    if lines:
        raise OptionError(
            f"{checkpoint} is of a run with other options: {'; '.join(lines)}. Continue with the same options, or "
            f"start a new run from its weights: --finetune {checkpoint}, without --ckpt_path"
        )


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Names whose values differ. An option that the other side does not know, as one of a newer version, does not."""
    for name in sorted(before.keys() | now.keys()):
        known = name in before and name in now
        unset = before if name in now else now
        if (known and before[name] != now[name]) or (not known and _has_none_above(unset, name)):
            yield name


def _has_none_above(options: Mapping[str, Any], name: str) -> bool:
    """Whether an option of which `name` is a part is not set here, such as `model.optimizer`."""
    parts = name.split(".")
    return any(options.get(".".join(parts[:n]), "") is None for n in range(1, len(parts)))


def _flat(options: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in options.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, Mapping) and value:
            yield from _flat(value, path)
        else:
            yield path, value


def _is_one_of(name: str, names: tuple[str, ...]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in names)

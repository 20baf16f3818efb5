"""A Trainer that trains for some steps and does nothing else: no logger, no checkpoint, no validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from lightning_ccn.sharding import TorchRecStrategy


def bare_trainer(
    home: Path,
    strategy: TorchRecStrategy,
    accelerator: str,
    devices: int,
    steps: int,
    callback: L.Callback,
    precision: Any = "32-true",
) -> L.Trainer:
    """The Trainer."""
    return L.Trainer(
        strategy=strategy,
        accelerator=accelerator,
        devices=devices,
        precision=precision,
        max_steps=steps,
        callbacks=[callback],
        logger=False,
        default_root_dir=home,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
    )

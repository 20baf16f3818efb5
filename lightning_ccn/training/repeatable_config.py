"""The `config.yaml` of a run's folder."""

from __future__ import annotations

from typing import Any

import lightning as L
from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from lightning_ccn.training.given_checkpoint import OPTIONS


class RepeatableConfig(SaveConfigCallback):
    """Saves the options of a run so that they start the same run anew, under another name and from its beginning."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, *args: Any, **kwargs: Any) -> None:
        if kwargs.get("config_filename") == OPTIONS:
            config = config.clone()
            # not null, which would undo the word of a file that comes before
            for name in ("run_id", "ckpt_path", *(["finetune"] if config.finetune is None else [])):
                config.pop(name)
        super().__init__(parser, config, *args, **kwargs)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Saves the options, those of a fit when it starts: one that is refused changes nothing in the folder."""
        if stage != "fit":
            super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Saves the options of a fit."""
        super().setup(trainer, pl_module, "fit")

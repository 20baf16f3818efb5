"""Options of a run beside those of the Trainer, the module and the data."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser

from lightning_ccn.callbacks.best_checkpoint import BestCheckpoint
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.lightning_private import options_of_type
from lightning_ccn.loggers.wandb_tracker import Mode
from lightning_ccn.module import CTRModule
from lightning_ccn.training.display import Display
from lightning_ccn.training.finetuning import NewIds
from lightning_ccn.training.monitors import FOLLOW


def add_run_options(parser: LightningArgumentParser) -> None:
    """Adds the run's folder, its checkpoints, its tracking and what follows fit, and sets the defaults of all."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
    parser.add_argument("--experiment", type=str, default="default", help="the run's folder is RUNS/EXPERIMENT/ID")
    parser.add_argument("--run_id", type=str | None, default=None, help="ID; default: SLURM's job id, or the time")
    parser.add_argument("--test_after_fit", type=bool, default=True, help="test the fitted model")
    parser.add_argument("--finetune", type=Path | None, default=None, help="start from this checkpoint's weights")
    parser.add_argument(
        "--new_rows",
        type=NewIds,
        default="unknown",
        help="start of the rows of ids that --finetune's checkpoint does not know: a copy of the unknown id's row, the "
        "mean of the rows of the item's category (in tables other than the items': as unknown), or a random draw",
    )
    parser.add_argument(
        "--keep_accumulators", type=bool, default=False, help="take the optimizers' state from --finetune too"
    )
    parser.add_argument(
        "--output",
        type=str | Path | None,
        default=None,
        help="folder for predictions, also in a store (s3://bucket/folder); default: in the run's folder",
    )
    parser.add_argument(
        "--ids",
        type=Literal["rows", "raw"],
        default="rows",
        help="ids of predictions: rows of tables, or raw: the log's own, by the data's vocabulary/*.parquet",
    )
    parser.add_argument("--save_every", type=float, default=600.0, help="seconds between two saves of last.ckpt")
    parser.add_argument(
        "--wandb",
        type=Mode,
        default="auto",
        help="Weights & Biases. auto: online with a key and a network, else offline; off: only metrics.csv",
    )
    parser.add_argument(
        "--upload_checkpoints", type=bool, default=False, help="upload checkpoints to W&B, not just their paths"
    )
    parser.add_class_arguments(Display, "display")
    parser.add_lightning_class_args(BestCheckpoint, "checkpoint")
    parser.set_defaults(
        {
            "trainer.strategy": {"class_path": "lightning_ccn.sharding.TorchRecStrategy"},
            "trainer.max_epochs": 1,
            "trainer.use_distributed_sampler": False,  # PageLoader gives every rank its own slices
            "trainer.num_sanity_val_steps": 0,
            "model.system": {"class_path": "lightning_ccn.models.CCN"},
            "checkpoint.monitor": "val_auc",
            "checkpoint.mode": FOLLOW,
            "checkpoint.filename": "{epoch}-{step}",
        }
    )
    parser.link_arguments("data.dataset", "model.dataset", apply_on="instantiate")


def path_options() -> set[str]:
    """Options of `ccn fit` whose value is a path, such as --data.folder."""
    parser = LightningArgumentParser()
    parser.add_lightning_class_args(L.Trainer, "trainer")
    parser.add_lightning_class_args(CTRModule, "model")
    parser.add_lightning_class_args(PageData, "data")
    add_run_options(parser)
    return options_of_type(parser, Path)

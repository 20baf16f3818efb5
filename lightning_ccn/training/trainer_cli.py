"""The LightningCLI behind `ccn fit`, `validate`, `test` and `predict`."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse import Namespace
from jsonargparse.typing import lazy_instance
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from lightning_ccn.callbacks.diagnostics_file import DiagnosticsFile
from lightning_ccn.callbacks.health_monitor import HealthMonitor
from lightning_ccn.callbacks.prediction_writer import PredictionWriter
from lightning_ccn.callbacks.run_summary import RunSummary
from lightning_ccn.callbacks.save_and_stop import SaveAndStop
from lightning_ccn.callbacks.score_collector import ScoreCollector
from lightning_ccn.callbacks.wandb_figures import WandbFigures
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.errors import OptionError
from lightning_ccn.loggers.metrics_csv import MetricsCSV
from lightning_ccn.loggers.wandb_tracker import Mode, WandbTracker, parent_of, wanted
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import ShardingError, TorchRecStrategy, newest_whole
from lightning_ccn.training.finetuning import NewIds, fine_tuning
from lightning_ccn.training.job import Job
from lightning_ccn.training.parsers import TrainerParser
from lightning_ccn.training.roll_call import roll_call
from lightning_ccn.training.run_folder import remove_if_empty, run_id


class TrainingCLI(LightningCLI):
    """Typed from the signatures of `CTRModule`, `PageData`, the Trainer and the strategy; saved with every run."""

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser that says errors in one line."""
        self.parser_class = TrainerParser
        return super().init_parser(**kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The run's folder, the checkpoints, and what to do after fit."""
        parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of all runs")
        parser.add_argument("--experiment", type=str, default="default", help="a run goes to RUNS/EXPERIMENT/ID")
        parser.add_argument("--run_id", type=str | None, default=None, help="ID; default: SLURM's job id, or the time")
        parser.add_argument("--test_after_fit", type=bool, default=True, help="test the fitted model")
        parser.add_argument("--finetune", type=Path | None, default=None, help="start from this checkpoint's weights")
        parser.add_argument(
            "--new_rows",
            type=NewIds,
            default="unknown",
            help="how ids that --finetune's checkpoint does not know start: as the unknown id, as the mean of their "
            "category's items (other tables: as the unknown id), or as drawn",
        )
        parser.add_argument(
            "--keep_accumulators", type=bool, default=False, help="take the optimizers' state from --finetune too"
        )
        parser.add_argument("--output", type=Path | None, default=None, help="of predict; default: in the run's folder")
        parser.add_argument("--save_every", type=float, default=600.0, help="seconds between two saves of last.ckpt")
        parser.add_argument(
            "--wandb",
            type=Mode,
            default="auto",
            help="Weights & Biases. auto: online with a key and a network, else offline; off: metrics.csv alone",
        )
        parser.add_argument(
            "--upload_checkpoints", type=bool, default=False, help="to W&B, which else learns their paths alone"
        )
        parser.add_lightning_class_args(ModelCheckpoint, "checkpoint")
        parser.set_defaults(
            {
                "trainer.strategy": lazy_instance(TorchRecStrategy),
                "trainer.max_epochs": 1,
                "trainer.use_distributed_sampler": False,  # PageLoader gives every rank its own slices
                "trainer.num_sanity_val_steps": 0,
                "model.system": {"class_path": "lightning_ccn.models.CCN"},
                "checkpoint.monitor": "val_auc",
                "checkpoint.mode": "max",
                "checkpoint.filename": "{epoch}-{step}",
            }
        )
        parser.link_arguments("data.dataset", "model.dataset", apply_on="instantiate")

    @property
    def options(self) -> Namespace:
        """What was asked for, of the subcommand if there is one."""
        config: Namespace = self.config[self.subcommand] if self.subcommand else self.config
        return config

    def before_instantiate_classes(self) -> None:
        """Names the run's folder, the same on every rank, and the checkpoint that `last` means."""
        options = self.options
        if options.trainer.enable_checkpointing is False:
            raise OptionError(
                "trainer.enable_checkpointing is false: a run always leaves last.ckpt, by which it goes on; "
                "--checkpoint.save_top_k 0 keeps no other checkpoint"
            )
        runs = Path(options.runs) / options.experiment
        options.run_id = options.run_id or run_id(runs if self.subcommand else None)
        self.run_folder = runs / options.run_id
        self.is_new = not self.run_folder.exists() or not any(self.run_folder.iterdir())
        options.trainer.default_root_dir = str(self.run_folder)
        options.checkpoint.dirpath = str(self.run_folder / "checkpoints")
        if options.get("ckpt_path") == "last":
            options.ckpt_path = self._last()
        elif self.subcommand == "fit" and options.finetune and options.ckpt_path:
            raise ShardingError(
                "--finetune starts afresh from a checkpoint's weights, --ckpt_path goes on with its run: leave one out"
            )

    def _last(self) -> str | None:
        """The run's newest whole checkpoint; None where it has none yet, which starts `fit` from nothing."""
        found = newest_whole(self.run_folder / "checkpoints")
        if found is None and self.subcommand != "fit":
            raise ShardingError(
                f"--ckpt_path last: {self.run_folder / 'checkpoints'} has no whole checkpoint; "
                "name the run with --experiment and --run_id, or a checkpoint by its path"
            )
        return str(found) if found else None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A Trainer that logs into the run's folder."""
        options = self.options
        self.tracker = None
        if options.trainer.logger is None:
            loggers: list[Logger] = [MetricsCSV(options.runs, name=options.experiment, version=options.run_id)]
            if self.subcommand != "predict" and wanted(options.wandb):
                self.tracker = self._tracker()
                loggers.append(self.tracker)
            kwargs["logger"] = loggers
        asked = self._get(self.config_init, "trainer.callbacks") or []
        scores = ScoreCollector(validations=self.tracker is not None)
        callbacks = [*(asked if isinstance(asked, list) else [asked]), scores]
        callbacks += [
            DiagnosticsFile(self.run_folder, scores),
            HealthMonitor(),
        ]  # in this order: HealthMonitor starts a clock
        if self.tracker is not None:
            callbacks.append(WandbFigures(self.tracker, scores))
        callbacks.append(RunSummary(self.run_folder))  # after these: its clock stands still while they draw
        callbacks.append(SaveAndStop(self.run_folder / "checkpoints", options.save_every))
        if self.subcommand == "predict":
            callbacks.append(PredictionWriter(options.output or self.run_folder / "predictions"))
        if SLURMEnvironment.detect():
            # its own handler would save in the middle of whatever the signal interrupts
            plugins = self._get(self.config_init, "trainer.plugins") or []
            kwargs["plugins"] = [*plugins, SLURMEnvironment(auto_requeue=False)]
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        self.datamodule.check_ranks(trainer.num_nodes * trainer.num_devices)  # before Lightning starts the others
        self._meet(trainer)
        starts = self.subcommand == "fit" and not options.ckpt_path  # `last` found none
        if starts and options.finetune:
            trainer.callbacks.append(  # type: ignore[attr-defined]
                fine_tuning(options.finetune, self.datamodule.dataset, options.new_rows, options.keep_accumulators)
            )
        return trainer

    def _meet(self, trainer: L.Trainer) -> None:
        """Of the batch scripts' jobs: tries the network, and lets all ranks go on from the same checkpoint."""
        job = Job.here()
        if job is None or not isinstance(trainer.strategy, TorchRecStrategy):
            return
        roll_call(job, trainer.strategy)
        # `last` as rank 0 found it: another node may see the shared folder as it was some seconds ago
        self.options.ckpt_path = trainer.strategy.broadcast(self.options.ckpt_path)
        self.config_init[self.subcommand].ckpt_path = self.options.ckpt_path

    def _tracker(self) -> WandbTracker:
        assert self.subcommand is not None
        options = self.options
        parent = parent_of(options.finetune) if options.finetune else None
        return WandbTracker(
            self.run_folder,
            config=json.loads(self._parser(self.subcommand).dump(options, format="json", skip_none=False)),
            job_type=self.subcommand,
            parent=parent,
            offline=options.wandb == "offline",
            upload_checkpoints=options.upload_checkpoints,
        )

    def instantiate_classes(self) -> None:
        """Opens the dataset, and makes the module and the Trainer."""
        with self._ending_well():
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        """A command is one W&B run: `fit` and the test after it."""
        with self._ending_well(), self.tracker or nullcontext():
            super()._run_subcommand(subcommand)

    @contextmanager
    def _ending_well(self) -> Iterator[None]:
        """A run that fails before its first step leaves no folder; Ctrl-C ends with how to go on."""
        try:
            yield
        except BaseException as error:
            if self.subcommand and self.is_new and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
                remove_if_empty(self.run_folder)
            # how Lightning ends after Ctrl-C
            if isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt):
                raise KeyboardInterrupt(self._how_to_go_on()) from None
            raise

    def _how_to_go_on(self) -> str:
        if self.subcommand == "fit" and (found := newest_whole(self.run_folder / "checkpoints")):
            run = f"--experiment {self.options.experiment} --run_id {self.options.run_id}"
            return f"the same command goes on from {found} with {run} --ckpt_path last"
        return "there is nothing to go on from"

    def after_fit(self) -> None:
        """Tests the fitted model, unless told not to."""
        if self.options.test_after_fit and not self.trainer.interrupted:
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)


def run(command: str, args: list[str]) -> int:
    """Runs one Trainer command; raises DataError, ShardingError or TrainingError."""
    words = [command, *args]
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # a warning that TorchRec's calls cause
    # what is logged at the end of an epoch is of all ranks already
    warnings.filterwarnings("ignore", message="It is recommended to use `self.log")
    TrainingCLI(
        CTRModule,
        PageData,
        args=None if words == sys.argv[1:] else words,
        seed_everything_default=0,
        # a later test of the run leaves what `fit` was told alone
        save_config_kwargs={
            "config_filename": f"{command}.yaml" if command != "fit" else "config.yaml",
            "overwrite": True,
        },
        auto_configure_optimizers=False,
        parser_kwargs={"prog": "ccn"},
    )
    return 0


fit, validate, test, predict = (partial(run, command) for command in ("fit", "validate", "test", "predict"))

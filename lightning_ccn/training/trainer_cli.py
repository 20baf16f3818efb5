"""The LightningCLI behind `ccn fit`, `validate`, `test` and `predict`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import ModelSummary, ProgressBar, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.loggers import Logger

from lightning_ccn.callbacks.diagnostics_file import DiagnosticsFile
from lightning_ccn.callbacks.health_monitor import HealthMonitor
from lightning_ccn.callbacks.model_size import ModelSize
from lightning_ccn.callbacks.prediction_writer import PredictionWriter
from lightning_ccn.callbacks.run_summary import RunSummary
from lightning_ccn.callbacks.same_run import SameRun, check_same_run
from lightning_ccn.callbacks.save_and_stop import SaveAndStop
from lightning_ccn.callbacks.score_collector import ScoreCollector
from lightning_ccn.callbacks.wandb_figures import WandbFigures
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.places import place
from lightning_ccn.data.raw_ids import RawIds
from lightning_ccn.errors import Interrupted, OptionError
from lightning_ccn.lightning_private import callbacks_of, is_rank_zero
from lightning_ccn.loggers.metrics_csv import MetricsCSV
from lightning_ccn.loggers.wandb_tracker import WandbTracker, parent_of, wanted
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import TorchRecStrategy, newest_whole, read_trainer_state
from lightning_ccn.signals import ctrl_c_stops, interrupted
from lightning_ccn.training.auxiliary_start import auxiliary_start
from lightning_ccn.training.finetuning import fine_tuning
from lightning_ccn.training.given_checkpoint import (
    CHECKPOINTS,
    NEWEST,
    NEWEST_IF_ANY,
    with_options_of_run,
)
from lightning_ccn.training.job import Job
from lightning_ccn.training.option_checks import check_options
from lightning_ccn.training.parsers import ConfigFile, TrainerParser
from lightning_ccn.training.quiet import hide_noise
from lightning_ccn.training.repeatable_config import RepeatableConfig
from lightning_ccn.training.roll_call import roll_call
from lightning_ccn.training.run_folder import RunLock, remove_if_empty
from lightning_ccn.training.run_options import add_run_options
from lightning_ccn.training.run_place import PlacedCLI
from lightning_ccn.training.words import in_order

BAR_REFRESHES = 4  # a second; Lightning's 100 redraw the bar after each step, which a step waits for


class TrainingCLI(PlacedCLI):
    """The command line of a run.

    Its options come from the signatures of `CTRModule`, `PageData`, the Trainer and the strategy, and from
    `run_options`. They are saved with every run.
    """

    _lock: RunLock | None = None

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose errors are one line and whose `--config` finds `conf/` from any folder."""
        parser = TrainerParser(dump_header=[f"lightning.pytorch=={L.__version__}"], **kwargs)
        parser.add_argument("-c", "--config", action=ConfigFile, help="YAML file of options; the last of several wins")
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the options of `run_options`."""
        add_run_options(parser)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the options into `config`; a `class_path` may name a class in the current folder."""
        hide_noise()
        if not {"", os.getcwd()} & set(sys.path):
            sys.path.append(os.getcwd())  # at the end, so that nothing in this folder replaces an installed package
        self.config = parser.parse_args(with_options_of_run(in_order(args)))

    def before_instantiate_classes(self) -> None:
        """Checks the options, names the run's folder, the same on every rank, and finds the checkpoints."""
        options = self.options
        check_options(options, self.subcommand)
        if options.trainer.enable_checkpointing is False:
            raise OptionError(
                "trainer.enable_checkpointing is false: a run always writes last.ckpt, to be continued from; "
                "--checkpoint.save_top_k 0 keeps no other checkpoint"
            )
        given = options.get("ckpt_path")
        if self.subcommand not in (None, "fit") and not given:
            raise OptionError(
                f"--ckpt_path is missing: `ccn {self.subcommand}` scores with a checkpoint; name one, such as "
                "runs/default/RUN/checkpoints/last.ckpt, or the run's folder"
            )
        if self.subcommand == "fit" and options.finetune and given and given not in (NEWEST, NEWEST_IF_ANY):
            raise OptionError(
                "--finetune starts a new run from a checkpoint's weights, --ckpt_path continues the checkpoint's run: "
                "leave one out"
            )
        self.name_folder(given)
        if given:
            found = self.find_checkpoint(given)
            options.ckpt_path = str(found) if found else None
        if self.subcommand == "fit":
            options.model.auxiliary_start = auxiliary_start(options)
        if options.finetune:
            self.find_parent()
        self.check_folder(given)
        if self.subcommand == "fit" and options.ckpt_path:
            path = Path(options.ckpt_path)
            check_same_run(path, read_trainer_state(path), self.plain_options())
        options.trainer.default_root_dir = str(self.run_folder)
        options.checkpoint.dirpath = str(self.run_folder / CHECKPOINTS)
        if self.subcommand not in (None, "predict") and is_rank_zero():
            self._lock = self.own_folder()

    def own_folder(self) -> RunLock | None:
        """Keeps other processes out of the run's folder."""
        return RunLock(self.run_folder)

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A Trainer that logs into the run's folder."""
        options = self.options
        self.tracker: WandbTracker | None = None
        if options.trainer.logger is None and self.subcommand == "predict":
            kwargs["logger"] = False
            if (strategy := self.instantiated("trainer.strategy")) and isinstance(strategy, TorchRecStrategy):
                strategy.plan_file = strategy.plan_file or os.devnull  # plan.json in the folder is that of the training
        elif options.trainer.logger is None:
            loggers: list[Logger] = [MetricsCSV(options.runs, name=options.experiment, version=options.run_id)]
            if self.subcommand is not None and wanted(options.wandb):  # None: a plan
                self.tracker = self._new_tracker()
                loggers.append(self.tracker)
            kwargs["logger"] = loggers
        if SLURMEnvironment.detect():
            # Lightning's signal handler would save in the middle of whatever the signal interrupts
            kwargs["plugins"] = [*(self.instantiated("trainer.plugins") or []), SLURMEnvironment(auto_requeue=False)]
        trainer = super().instantiate_trainer(callbacks=self._callbacks(), **kwargs)
        self.check_same_data()
        self.datamodule.check_ranks(trainer.num_nodes * trainer.num_devices)  # before Lightning starts the others
        self._meet_other_ranks(trainer)
        if self.subcommand == "fit" and self.parent and not options.ckpt_path:  # a `last` may have found none
            callbacks_of(trainer).append(
                fine_tuning(self.parent, self.datamodule.dataset, options.new_rows, options.keep_accumulators)
            )
        return trainer

    def _callbacks(self) -> list[L.Callback]:
        """The user's callbacks, then ours."""
        options = self.options
        users = self.instantiated("trainer.callbacks") or []
        callbacks: list[L.Callback] = [*users] if isinstance(users, list) else [users]
        has_summary = any(isinstance(callback, ModelSummary) for callback in callbacks)
        if not has_summary and options.trainer.enable_model_summary is not False:
            callbacks.append(ModelSize())
        scores = ScoreCollector(validations=self.tracker is not None)
        # the monitor and the summary start clocks when a validation ends, so they come after what takes time then
        callbacks += [scores, DiagnosticsFile(self.run_folder, scores), HealthMonitor()]
        if self.tracker is not None:
            callbacks.append(WandbFigures(self.tracker, scores))
        callbacks += [RunSummary(self.run_folder), SaveAndStop(self.run_folder / CHECKPOINTS, options.save_every)]
        callbacks.append(SameRun(self.plain_options()))
        has_bar = any(isinstance(callback, ProgressBar) for callback in callbacks)
        if not has_bar and options.trainer.enable_progress_bar is not False:
            callbacks.append(RichProgressBar(refresh_rate=BAR_REFRESHES))
        if self.subcommand == "predict":
            output = place(options.output or self.run_folder / "predictions")
            callbacks.append(PredictionWriter(output, self.raw_ids()))
        return callbacks

    def raw_ids(self) -> RawIds | None:
        """The log's own ids, if a prediction is to write them.

        Raises:
            DataError: The data has no vocabulary for them.
        """
        return RawIds(self.datamodule.dataset) if self.options.ids == "raw" else None

    def _meet_other_ranks(self, trainer: L.Trainer) -> None:
        """In a job of the batch scripts: tests the network, and makes all ranks load the same checkpoint."""
        job = Job.here()
        if job is None or not isinstance(trainer.strategy, TorchRecStrategy):
            return
        roll_call(job, trainer.strategy)
        # `last` as rank 0 found it: another node may see the shared folder as it was some seconds ago
        self.set_checkpoint(trainer.strategy.broadcast(self.options.ckpt_path))

    def _new_tracker(self) -> WandbTracker:
        assert self.subcommand is not None
        options = self.options
        parent = parent_of(self.parent) if self.parent else None
        return WandbTracker(
            self.run_folder,
            config=self.plain_options(),
            job_type=self.subcommand,
            parent=parent,
            offline=options.wandb == "offline",
            upload_checkpoints=options.upload_checkpoints,
        )

    def instantiate_classes(self) -> None:
        """Opens the dataset, and makes the module and the Trainer."""
        with self._cleaning_up():
            super().instantiate_classes()

    def run_subcommand(self, subcommand: str) -> None:
        """Runs a command as one W&B run: `fit` and the test after it."""
        with self._cleaning_up(), ctrl_c_stops(says=is_rank_zero()), self.tracker or nullcontext():
            super().run_subcommand(subcommand)
        self._release()

    @contextmanager
    def _cleaning_up(self) -> Iterator[None]:
        """Removes the folder of a run that fails before its first step; says after Ctrl-C how to continue."""
        try:
            yield
        except BaseException as error:
            if self.subcommand and self.is_new and is_rank_zero():
                remove_if_empty(self.run_folder)
            self._release()
            # how Lightning ends after a Ctrl-C that could not wait
            at_once = isinstance(error, SystemExit) and isinstance(error.__context__, KeyboardInterrupt)
            if at_once or (isinstance(error, Interrupted) and interrupted()):
                raise KeyboardInterrupt(self._how_to_continue() if is_rank_zero() else "") from None
            raise

    def _release(self) -> None:
        if self._lock is not None:  # this process may run another command, and another one continue the run
            self._lock.release()

    def _how_to_continue(self) -> str:
        if self.subcommand == "fit" and (found := newest_whole(self.run_folder / CHECKPOINTS)):
            run = f"--experiment {self.options.experiment} --run_id {self.options.run_id}"
            return f"to continue from {found}, add {run} --ckpt_path last to the same command"
        return "there is no checkpoint to continue from"

    def after_fit(self) -> None:
        """Tests the fitted model, unless told not to."""
        if self.options.test_after_fit and not self.trainer.interrupted:
            self.trainer.test(self.model, datamodule=self.datamodule, verbose=False)


def run(command: str, args: list[str]) -> int:
    """Runs a command of the Trainer.

    Args:
        command: `fit`, `validate`, `test` or `predict`.
        args: Options of the command.

    Returns:
        The exit code, 0.

    Raises:
        CCNError, ShardingError: The command cannot run as asked, or training fails.
    """
    names_itself = "CCN_RUN_ID" not in os.environ
    try:
        TrainingCLI(
            CTRModule,
            PageData,
            args=[command, *args],
            seed_everything_default=0,
            # a later test of the run does not overwrite the options of its fit
            save_config_callback=None if command == "predict" else RepeatableConfig,
            save_config_kwargs={
                "config_filename": f"{command}.yaml" if command != "fit" else "config.yaml",
                "overwrite": True,
            },
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "ccn"},
        )
    finally:
        if names_itself:  # the name was for the ranks that Lightning started, and not for another run of this process
            os.environ.pop("CCN_RUN_ID", None)
    return 0


fit, validate, test, predict = (partial(run, command) for command in ("fit", "validate", "test", "predict"))

"""Everything that this package uses of Lightning beyond its public interface, read in lightning 2.6.6.

A newer Lightning may change any of it: these few functions and base classes are all there is to check then. (The
sharding strategy, which can be used without the rest of this package, has its own.)
"""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import lightning as L
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.fabric.utilities.rank_zero import _get_rank
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.utilities import rank_zero_only


def is_rank_zero() -> bool:
    """Whether this process is the first of all ranks, also before there is a Trainer."""
    rank = _get_rank()
    if rank is None:  # no launcher has started this process
        rank = rank_zero_only.rank  # type: ignore[attr-defined]  # set at import, and again by the strategy
    on_first_node = "RANK" in os.environ or os.environ.get("NODE_RANK", "0") == "0"
    return rank == 0 and on_first_node


# The Trainer's connectors set these attributes, so type checkers do not see them.


def log_interval(trainer: L.Trainer) -> int:
    """The Trainer's `log_every_n_steps`."""
    steps: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return steps


def callbacks_of(trainer: L.Trainer) -> list[L.Callback]:
    """The Trainer's own list of callbacks, which may be changed."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return callbacks


def datamodule_of(trainer: L.Trainer) -> L.LightningDataModule:
    """The data module that the Trainer reads."""
    datamodule: L.LightningDataModule = trainer.datamodule  # type: ignore[attr-defined]
    return datamodule


def let_go_of_ranks(trainer: L.Trainer) -> list[subprocess.Popen[bytes]]:
    """Makes Lightning forget the ranks that this one has started, and returns them.

    Lightning watches these processes every five seconds, and kills all ranks, this one too, if it finds that one has
    ended with an exit code. So a rank that takes longer to end than another would be killed.
    """
    started: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    forgotten = [*started]
    started.clear()  # the list is also that of the watching thread
    return forgotten


def sigterm_calls(trainer: L.Trainer, function: Callable[[], None]) -> None:
    """On several ranks, SIGTERM calls a function in place of what Lightning does; to be called in `setup`.

    Lightning's handler broadcasts to the other ranks from wherever the signal interrupts this one, out of step with
    them. And each step asks by another broadcast whether the signal has come, of which it hides every error: the first
    one, which says that a rank was lost, and the host would wait for the device at each step.
    """
    if trainer.world_size == 1:
        return

    def handle(number: int, frame: FrameType | None) -> None:
        function()

    connector = trainer._signal_connector
    connector._sigterm_notifier_fn = handle  # type: ignore[method-assign,assignment]  # registered after `setup`
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


# The loop of `fit`.


def validation_follows(trainer: L.Trainer) -> bool:
    """Whether a validation comes between the training step that has just ended and the next."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]  # None before the loop


def repair_validation_count(trainer: L.Trainer) -> None:
    """Sets the number of started validation batches to that of completed ones.

    A validation that is run again after a restart would otherwise be one batch ahead.
    """
    total = trainer.fit_loop.epoch_loop.val_loop.batch_progress.total
    assert isinstance(total, _ProcessedTracker)
    total.ready = total.started = total.processed = total.completed


def restart_validation(checkpoint: dict[str, Any]) -> None:
    """Changes a checkpoint from the middle of a validation: whoever loads it starts at the validation's first batch.

    Lightning would continue with the remaining batches, but no checkpoint holds the metrics of the others.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
    done_before = progress["total"]["completed"] - progress["current"]["completed"]
    for name, done in (("total", done_before), ("current", 0)):
        progress[name] = {"ready": done + 1, "started": done + 1, "processed": done, "completed": done}


def epoch_was_left(trainer: L.Trainer) -> bool:
    """Whether the epoch that has just ended has batches left: `max_steps`, `max_time` or an early stop ended it."""
    loop = trainer.fit_loop
    progress = loop.epoch_progress.current
    assert isinstance(progress, _ProcessedTracker)
    return progress.processed == progress.ready and loop.epoch_loop.batch_progress.current.ready < loop.max_batches


def reopen_epoch(checkpoint: dict[str, Any]) -> None:
    """Changes a checkpoint from the end of an epoch that was left: whoever loads it goes on with the next batch.

    Lightning counts such an epoch as a complete one, and would begin the next.
    """
    loop = checkpoint["loops"]["fit_loop"]
    for name in ("total", "current"):
        progress = loop["epoch_progress"][name]
        progress["processed"] = progress["completed"] = progress["started"] - 1
    checkpoint["epoch"] = loop["epoch_progress"]["current"]["processed"]


# Loggers.


class ExperimentOwner:
    """For a subclass of one of Lightning's loggers: makes the logger's `experiment` itself, when it is first used."""

    _experiment: Any

    def new_experiment(self) -> Any:
        """Makes the object that writes; called on rank 0 only."""
        raise NotImplementedError

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The object that writes; a dummy on ranks other than 0."""
        if self._experiment is None:
            self._experiment = self.new_experiment()
        return self._experiment

    @property
    def has_experiment(self) -> bool:
        """Whether the experiment has been made."""
        return self._experiment is not None

    def forget_experiment(self) -> None:
        """The next use of `experiment` makes another one."""
        self._experiment = None


class AppendingWriter(ExperimentWriter):
    """Lightning's writer of `metrics.csv`, but it appends to an existing file instead of deleting it."""

    def _check_log_dir_exists(self) -> None:
        path = Path(self.metrics_file_path)
        if path.exists():
            with path.open(newline="") as file:
                self.metrics_keys = next(csv.reader(file), [])


# The command line.


class OpenCLI(LightningCLI):
    """LightningCLI with public names for what its subclasses here read and override."""

    def __init__(self, model: type[L.LightningModule], data: type, args: list[str], **settings: Any) -> None:
        every = self.subcommands()
        if args and args[0] in every:  # to make the parsers of the others takes longer than to parse
            self.subcommands = lambda: {args[0]: every[args[0]]}  # type: ignore[method-assign]
        # a checkpoint does not hold the arguments of its module: the run's config.yaml does
        super().__init__(model, data, args=args, load_from_checkpoint_support=False, **settings)

    def instantiated(self, key: str) -> Any:
        """What the option `key` has become: the object where the option names a class. None where it is not set."""
        return self._get(self.config_init, key)

    @property
    def command_parser(self) -> LightningArgumentParser:
        """The parser of the options: of the subcommand, if there is one."""
        return self._parser(self.subcommand)

    def set_checkpoint(self, path: str | None) -> None:
        """Changes the checkpoint that the subcommand loads, after everything else has been instantiated."""
        self.config[self.subcommand].ckpt_path = path
        self.config_init[self.subcommand].ckpt_path = path

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The Trainer's methods, with those of their arguments that are no options."""
        inherited = LightningCLI.subcommands()
        return {**inherited, "test": inherited["test"] | {"verbose"}}

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        """Keeps Lightning's table of a test's metrics off the terminal, where a run shows its own."""
        own = {"verbose": False} if subcommand == "test" else {}
        return {**super()._prepare_subcommand_kwargs(subcommand), **own}

    def _parse_ckpt_path(self) -> None:
        """Does not read the checkpoint: LightningCLI would look for hyperparameters in a file."""

    def run_subcommand(self, subcommand: str) -> None:
        """Runs the Trainer's method of that name."""
        super()._run_subcommand(subcommand)

    def _run_subcommand(self, subcommand: str) -> None:
        self.run_subcommand(subcommand)


def options_of_type(parser: LightningArgumentParser, kind: type) -> set[str]:
    """Options, with their dashes, whose values may be of a type, such as --data.folder for Path.

    Read in jsonargparse 4.53, which has no list of a parser's options.
    """
    found: set[str] = set()
    for action in parser._actions:
        hint = getattr(action, "_typehint", action.type)
        if kind in (hint, *get_args(hint)):
            found.update(action.option_strings)
    return found

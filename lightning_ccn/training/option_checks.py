"""Checks the values of a run's options before any work starts: a value that cannot be right is one line.

The parser has checked the types. Here come the ranges, which Lightning, torch and numpy check later or not at all.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.places import Place, place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.data.stream import PageOrder
from lightning_ccn.errors import OptionError
from lightning_ccn.sharding.table_optimizers import find_table_optimizer
from lightning_ccn.training.given_checkpoint import NEWEST_IF_ANY
from lightning_ccn.training.monitors import settle_monitors

LARGEST_SEED = 2**32 - 1  # numpy's
SYSTEMS = "lightning_ccn.models."  # a system of another package may mean something else by the name of an option


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be.

    Attributes:
        low: The smallest, or the number that it must be above.
        above: Whether `low` itself is left out.
        high: The largest; None: there is none.
    """

    low: float
    above: bool = False
    high: float | None = None

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        if self.high is not None:
            return f"from {self.low} to {self.high}"
        return f"above {self.low}" if self.above else f"{self.low} or more"


NOT_NEGATIVE, POSITIVE, ONE_OR_MORE, MINUS_ONE = Range(0), Range(0, above=True), Range(1), Range(-1)

# Option -> its range. An option that is not set, or is no number, is left out.
RANGES: dict[str, Range] = {
    "seed_everything": Range(0, high=LARGEST_SEED),
    "save_every": NOT_NEGATIVE,
    "world_size": ONE_OR_MORE,  # this and the next two are of `ccn plan`
    "gpu_memory": POSITIVE,
    "headroom": Range(0, high=1),
    "model.lr": POSITIVE,
    "model.final_lr": NOT_NEGATIVE,
    "model.initial_accumulator": NOT_NEGATIVE,
    "model.listwise_weight": NOT_NEGATIVE,
    "model.pairwise_weight": NOT_NEGATIVE,
    "model.order_weight": Range(0, high=1e6),  # beyond it, float32 sums of squared gradients overflow
    "model.auxiliary_start": NOT_NEGATIVE,
    "model.cold_below": Range(1, high=2**62),
    "data.batch_pages": ONE_OR_MORE,
    "data.lanes": ONE_OR_MORE,
    "data.workers": NOT_NEGATIVE,
    "data.evaluation_factor": ONE_OR_MORE,
    "data.short_length": ONE_OR_MORE,
    "data.long_length": ONE_OR_MORE,
    "data.seed": NOT_NEGATIVE,
    "trainer.strategy.init_args.table_lr": NOT_NEGATIVE,
    "trainer.strategy.init_args.table_eps": POSITIVE,
    "trainer.strategy.init_args.timeout_seconds": POSITIVE,
    "trainer.num_nodes": ONE_OR_MORE,
    "trainer.max_epochs": MINUS_ONE,
    "trainer.max_steps": MINUS_ONE,
    "trainer.min_epochs": NOT_NEGATIVE,
    "trainer.min_steps": NOT_NEGATIVE,
    "trainer.check_val_every_n_epoch": ONE_OR_MORE,
    "trainer.num_sanity_val_steps": MINUS_ONE,
    "trainer.log_every_n_steps": NOT_NEGATIVE,
    "trainer.accumulate_grad_batches": ONE_OR_MORE,
    "trainer.gradient_clip_val": NOT_NEGATIVE,
    "trainer.reload_dataloaders_every_n_epochs": NOT_NEGATIVE,
    "checkpoint.save_top_k": MINUS_ONE,
    "checkpoint.every_n_train_steps": NOT_NEGATIVE,
    "checkpoint.every_n_epochs": NOT_NEGATIVE,
}
SYSTEM_RANGES: dict[str, Range] = {
    "dim": ONE_OR_MORE,
    "heads": ONE_OR_MORE,
    "gain": POSITIVE,
    "temperature": POSITIVE,
    "contrast_weight": NOT_NEGATIVE,
    "attraction_ratio": NOT_NEGATIVE,
    "intent_weight": NOT_NEGATIVE,
    "tier_weight": NOT_NEGATIVE,
    "cross_rows": ONE_OR_MORE,
}
BATCHES = ("limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "overfit_batches")
SET_BY_A_RUN = {  # options of the Trainer, which must not be true -> why
    "barebones": "a run keeps a log and checkpoints",
    "use_distributed_sampler": "data gives every rank its own pages",
}
TRAINS_NOTHING = ("max_epochs", "max_steps", "limit_train_batches")  # if 0


def check_options(options: Namespace, command: str | None) -> None:
    """Checks the options of a run, and fills in what follows from others.

    Args:
        options: All options of the command; `checkpoint.mode` and the modes of callbacks may be changed.
        command: `fit`, `validate`, `test` or `predict`; None for a plan.

    Raises:
        OptionError: An option has a value that cannot be right; the message names the option, the value and what it may
            be.
        ShardingError: There is no such table optimizer.
        DataError: The dataset folder is missing or malformed.
    """
    for name, allowed in RANGES.items():
        _check_range(options, name, allowed)
    if str(options.get("model.system.class_path")).startswith(SYSTEMS):
        for name, allowed in SYSTEM_RANGES.items():
            _check_range(options, f"model.system.init_args.{name}", allowed)
        _check_hidden(options.get("model.system.init_args.hidden"))
    for name, why in SET_BY_A_RUN.items():
        if options.trainer[name] is True:
            raise OptionError(f"trainer.{name} is true: {why}; leave it out")
    _check_names(options)
    _check_devices(options)
    _check_batches(options)
    table_optimizer = options.get("trainer.strategy.init_args.table_optimizer")
    if table_optimizer is not None:
        find_table_optimizer(table_optimizer)
    settle_monitors(options, command)
    if command == "fit":
        _check_training(options)
    if command is not None:
        check_writable(Path(options.runs) / options.experiment, "--runs")
    if command == "predict" and options.output is not None:
        check_writable(place(options.output).parent, "--output")
    elif command is not None and options.output is not None:
        raise OptionError(
            f"--output {options.output}: only `ccn predict` writes there; --runs, --experiment and --run_id name the "
            "folder of a run"
        )


def check_writable(folder: Place, option: str) -> None:
    """Checks that files can be written to a folder, or to the nearest one above it if it is still to be made.

    A store is left to who writes there: to try it, a file would have to be made and removed by each rank.

    Args:
        folder: The folder.
        option: The option that names another, for the message.

    Raises:
        OptionError: Nothing can be written there.
    """
    if isinstance(folder, StorePath):
        return
    there = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there) as file:  # a full disk still makes empty files
            file.write(b"\0" * 4096)
            file.flush()
    except OSError as error:
        raise OptionError(
            f"{folder}: cannot be written to: {error.strerror}; name another folder with {option}, or make room in it"
        ) from None


def _check_range(options: Namespace, name: str, allowed: Range) -> None:
    value = options.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value not in allowed:
        raise OptionError(f"{name} is {value}: it must be {allowed}")


def _check_hidden(widths: Any) -> None:
    if widths == []:
        raise OptionError("model.system.init_args.hidden is []: give one width or more, such as [128,64]")
    for width in widths or []:
        if width < 1:
            raise OptionError(f"model.system.init_args.hidden has {width}: the width of a layer must be 1 or more")


def _check_names(options: Namespace) -> None:
    """A run is RUNS/EXPERIMENT/ID, and its best checkpoints lie side by side in one folder."""
    for name in ("run_id", "checkpoint.filename"):
        value = options.get(name)
        if value is not None and (Path(value).name != value or value in ("", ".", "..")):
            raise OptionError(f"{name} is '{value}': it must be the name of one file or folder, without a slash")
    experiment = Path(options.experiment)
    if ".." in experiment.parts or experiment.is_absolute() or not experiment.name:
        raise OptionError(f"experiment is '{options.experiment}': it must be a folder within --runs ({options.runs})")


def _check_devices(options: Namespace) -> None:
    devices = options.trainer.devices
    on_cpu = options.trainer.accelerator == "cpu"
    if devices is None or devices == "auto":
        return
    numbers = devices if isinstance(devices, list) else str(devices).rstrip(",").split(",")
    if numbers and all(str(number).strip().removeprefix("-").isdigit() for number in numbers):
        several = isinstance(devices, list) or len(numbers) > 1
        least = 0 if several else 1  # of several, each is the number of a GPU
        if all(int(number) >= least for number in numbers) and not (several and on_cpu):
            return
        if str(devices) == "-1" and not on_cpu:
            return
    raise OptionError(
        f"trainer.devices is {devices}: it must be auto, or a number of ranks from 1"
        + ("" if on_cpu else ", or numbers of GPUs such as 0,1, or -1 for all GPUs")
    )


def _check_batches(options: Namespace) -> None:
    for name in BATCHES:
        value = options.trainer[name]
        if isinstance(value, float) and value > 1 and value.is_integer():
            # jsonargparse tries a union's types in their order, and typing may give that of an equal union made earlier
            value = options.trainer[name] = int(value)
        if value is None or (isinstance(value, float) and 0 <= value <= 1):
            continue
        if isinstance(value, int) and value >= 0:
            continue
        raise OptionError(
            f"trainer.{name} is {value}: it must be a number of batches (an integer from 0), or a share of them "
            "(from 0.0 to 1.0)"
        )


def _check_training(options: Namespace) -> None:
    trainer = options.trainer
    for name in TRAINS_NOTHING:
        if trainer[name] is not None and trainer[name] == 0:
            raise OptionError(
                f"trainer.{name} is 0: nothing would be trained; leave it out, or score a checkpoint with `ccn test`"
            )
    for unit in ("epochs", "steps"):
        least, most = trainer[f"min_{unit}"], trainer[f"max_{unit}"]
        if least is not None and most not in (None, -1) and least > most:
            raise OptionError(f"trainer.min_{unit} is {least}: it is more than trainer.max_{unit}, {most}")
    frozen = options.get("model.freeze")
    if frozen and not options.finetune and options.get("ckpt_path") in (None, NEWEST_IF_ANY):
        raise OptionError(
            f"model.freeze is [{','.join(frozen)}]: without a checkpoint, these would stay at the random weights that "
            "they start with; name one with --finetune, or leave model.freeze out"
        )
    _check_interval(options)


def _check_interval(options: Namespace) -> None:
    """Of the distance between validations: some steps of an epoch, or a share of it, or a time."""
    trainer, interval = options.trainer, options.trainer.val_check_interval
    none = "trainer.limit_val_batches 0 turns validations off"
    if isinstance(interval, float) and not 0 < interval <= 1:
        raise OptionError(
            f"trainer.val_check_interval is {interval}: it must be a share of an epoch (above 0.0, to 1.0) or a number "
            f"of steps (an integer from 1); {none}"
        )
    if not isinstance(interval, int):
        return
    if interval < 1:
        raise OptionError(f"trainer.val_check_interval is {interval}: a number of steps must be 1 or more; {none}")
    if trainer.check_val_every_n_epoch is None or trainer.limit_val_batches == 0 or trainer.fast_dev_run:
        return  # counted over all epochs, or unused
    steps = _steps(options)
    if interval > steps:
        raise OptionError(
            f"trainer.val_check_interval is {interval}: an epoch of {options.data.folder} has only {steps:,} steps of "
            f"data.batch_pages {options.data.batch_pages}; make it smaller, or count over epochs with "
            "--trainer.check_val_every_n_epoch null"
        )


def _steps(options: Namespace) -> int:
    """Number of training steps of an epoch."""
    data = options.data
    pages = Dataset.open(data.folder).splits["train"].pages
    steps = PageOrder(np.array([pages]), data.batch_pages, data.lanes, None).steps
    limit = options.trainer.limit_train_batches
    if isinstance(limit, float):
        return int(steps * limit)
    return steps if limit is None else min(steps, limit)

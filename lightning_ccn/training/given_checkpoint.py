"""The checkpoint that a command names, in any way that its path can be written, and the options of its run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_ccn.data.places import is_address, on_disk
from lightning_ccn.errors import OptionError
from lightning_ccn.sharding import newest_whole, read_manifest, read_trainer_state
from lightning_ccn.training.run_folder import name_of_job
from lightning_ccn.training.words import given

CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
OPTIONS = "config.yaml"  # the file of a run that holds its options
# Instead of a path, of the run that --run_id names: the newest; the newest, or none before the first save, for a
# command that is started again and again, as a job is; the one with the best monitored metric.
NEWEST, NEWEST_IF_ANY, BEST = "last", "last_if_any", "best"
# A run's options that say where and as what it ran; whoever uses its checkpoint runs elsewhere, as another run.
OF_ITS_OWN = ("run_id", "ckpt_path", "finetune", "output")
OF_CHECKPOINTS = ("ckpt_path", "finetune", "runs")  # options that name checkpoints, or where they are written
NEEDED = ("ckpt_path", "finetune", "runs", "experiment", "run_id", "data.folder")  # to find the run and its data
ANYWHERE = {"num_nodes": "1", "devices": "auto", "accelerator": "auto"}


def find_checkpoint(given: str | Path) -> Path:
    """The checkpoint at a path: itself, or the newest of a run if the path is the run's folder or its checkpoints/.

    Raises:
        ShardingError: There is no complete checkpoint.
    """
    path = Path(given)
    for folder in (path, path / CHECKPOINTS):
        if folder.name == CHECKPOINTS and (found := newest_whole(folder)):
            return found
    read_manifest(path)  # raises for anything but a complete checkpoint, and says why
    return path


def best_checkpoint(folder: Path) -> Path:
    """The checkpoint of a run that its monitored metric chose.

    Args:
        folder: Folder of the run's checkpoints.

    Raises:
        OptionError: The run has no checkpoint, or chose none.
    """
    newest = newest_whole(folder)
    callbacks = read_trainer_state(newest).get("callbacks", {}) if newest else {}
    chosen = [state["best_model_path"] for state in callbacks.values() if state.get("best_model_path")]
    if not chosen:
        raise OptionError(
            f"--ckpt_path best: no checkpoint in {folder} was chosen by checkpoint.monitor; name one by its path, or "
            "--ckpt_path last"
        )
    best = folder / Path(chosen[0]).name  # the run's folder may have moved
    read_manifest(best)
    return best


def run_of(checkpoint: str | Path) -> Path | None:
    """The folder of the run that wrote a checkpoint; None if it does not lie in one."""
    path = Path(os.path.abspath(checkpoint))
    runs = [at.parent for at in (path, *path.parents, path / CHECKPOINTS) if at.name == CHECKPOINTS]
    found = next((run for run in runs if (run / OPTIONS).is_file()), None)
    return Path(os.path.relpath(found)) if found is not None and not Path(checkpoint).is_absolute() else found


def with_options_of_run(args: list[str]) -> list[str]:
    """Puts the options of a checkpoint's run before the given ones, so that they need not be repeated.

    A fit that goes on (`--ckpt_path`) is left alone: it is the same command again. If it is a fine-tuning whose parent
    is gone, its own options take the place of the parent's.

    Args:
        args: A command, `fit`, `validate`, `test` or `predict`, and its options, YAML files first; of other commands,
            all are returned.

    Raises:
        ShardingError: There is no checkpoint at the path.
        DataError: The path is an address of a store.
        OptionError: A word, such as `last`, names the checkpoint of no run; or the run's data are not where its options
            say.
    """
    command, options = args[0] if args else "", given(args, NEEDED)
    for option in OF_CHECKPOINTS:
        if options.get(option):
            on_disk(options[option], "checkpoints", f"--{option}")
    name = {"fit": "finetune", "plan": ""}.get(command, "ckpt_path")
    checkpoint = options.get(name)
    if not checkpoint:
        return args
    own = _named_run(options)
    if name == "ckpt_path" and checkpoint in (NEWEST, NEWEST_IF_ANY, BEST):
        run: Path | None = _existing(own, checkpoint)
    elif (run := run_of(checkpoint)) is None:
        if name == "finetune" and options.get("ckpt_path") and own and newest_whole(own / CHECKPOINTS):
            run = own
        else:
            _refuse_file_of_a_run(checkpoint)
            find_checkpoint(checkpoint)  # raises if there is none; the parser would ask for options that the run has
    if run is None or not (run / OPTIONS).is_file():
        return args
    _check_data(run, args, options)
    reset = [word for name in OF_ITS_OWN for word in (f"--{name}", "null")]
    if name == "finetune":
        reset += ["--model.auxiliary_start", "null"]  # its losses have started the parent's degree
    reset += [word for name, value in ANYWHERE.items() for word in (f"--trainer.{name}", value)]
    return [command, "--config", str(run / OPTIONS), *reset, *args[1:]]


def _named_run(options: Mapping[str, Any]) -> Path | None:
    """The folder of the run that the options, or the environment of a job, name."""
    name = options.get("run_id") or name_of_job(continues=True)
    return Path(options.get("runs") or "runs", options.get("experiment") or "default", str(name)) if name else None


def _existing(run: Path | None, word: str) -> Path:
    if run is None:
        raise OptionError(f"--ckpt_path {word}: of which run? Add --run_id (and --experiment), or name it by its path")
    if not (run / OPTIONS).is_file() and not (run / CHECKPOINTS).is_dir():
        raise OptionError(
            f"--ckpt_path {word}: {run} is not the folder of a run; correct --runs, --experiment or --run_id, or name "
            "the checkpoint by its path"
        )
    return run


def _refuse_file_of_a_run(checkpoint: str | Path) -> None:
    path = Path(checkpoint)
    if path.is_file() and (path.parent / CHECKPOINTS).is_dir():
        raise OptionError(f"{path} is not a checkpoint: name the folder of its run, {path.parent}")


def _check_data(run: Path, args: list[str], options: Mapping[str, Any]) -> None:
    """Checks that the data are where the run's options say, unless the command names others."""
    if options.get("data.folder") is not None or any(re.match(r"--data(=|$)", word) for word in args):
        return
    folder = given(["--config", str(run / OPTIONS)], ("data.folder",)).get("data.folder")
    if folder is not None and not is_address(folder) and not Path(folder).is_dir():
        raise OptionError(
            f"{folder}: no such folder; this data.folder comes from {run / OPTIONS}: name the data with --data.folder"
            + ("" if Path(folder).is_absolute() else ", or run the command in the folder where the run was started")
        )

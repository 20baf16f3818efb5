"""The checkpoint that a command names, in any way that its path can be written, and the options of its run."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from lightning_ccn.errors import OptionError
from lightning_ccn.sharding import newest_whole, read_manifest, read_trainer_state

CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
OPTIONS = "config.yaml"  # the file of a run that holds its options
# Instead of a path, of the run that --run_id names: the newest; the newest, or none before the first save, for a
# command that is started again and again, as a job is; the one with the best monitored metric.
NEWEST, NEWEST_IF_ANY, BEST = "last", "last_if_any", "best"
# A run's options that say where and as what it ran; whoever uses its checkpoint runs elsewhere, as another run.
OF_ITS_OWN = ("run_id", "ckpt_path", "finetune", "output")
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

    A fit that goes on (`--ckpt_path`) is left alone: it is the same command again.

    Args:
        args: A command, `fit`, `validate`, `test` or `predict`, and its options; of other commands, all are returned.

    Raises:
        ShardingError: There is nothing at the checkpoint's path.
    """
    command, given = args[0] if args else "", _given(args)
    checkpoint = {"fit": given.finetune, "plan": None}.get(command, given.ckpt_path)
    if not checkpoint:
        return args
    if checkpoint in (NEWEST, NEWEST_IF_ANY, BEST):
        run = Path(given.runs) / given.experiment / given.run_id if given.run_id else None
    else:
        run = run_of(checkpoint)
        if run is None and not Path(checkpoint).exists():
            find_checkpoint(checkpoint)  # raises; the parser would ask for options that the run has
    if run is None or not (run / OPTIONS).is_file():
        return args
    reset = [word for name in OF_ITS_OWN for word in (f"--{name}", "null")]
    reset += [word for name, value in ANYWHERE.items() for word in (f"--trainer.{name}", value)]
    return [command, "--config", str(run / OPTIONS), *reset, *args[1:]]


def _given(args: list[str]) -> Any:
    """The options in `args` that name a checkpoint and its run."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, default in (
        ("ckpt_path", None),
        ("finetune", None),
        ("runs", "runs"),
        ("experiment", "default"),
        ("run_id", None),
    ):
        parser.add_argument(f"--{name}", default=default, nargs="?")
    return parser.parse_known_args(args)[0]

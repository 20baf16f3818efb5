"""Where a run of `ccn fit`, `validate`, `test` or `predict` is: its folder, and the checkpoints that it starts from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_ccn.data.identity import trained_on
from lightning_ccn.data.places import place
from lightning_ccn.errors import OptionError
from lightning_ccn.lightning_private import OpenCLI
from lightning_ccn.sharding import ShardingError, newest_whole, read_trainer_state
from lightning_ccn.training.given_checkpoint import (
    BEST,
    CHECKPOINTS,
    NEWEST,
    NEWEST_IF_ANY,
    best_checkpoint,
    find_checkpoint,
    run_of,
)
from lightning_ccn.training.run_folder import holds_a_run, run_id


class PlacedCLI(OpenCLI):
    """A command line that knows the folder of its run.

    Attributes:
        run_folder: The folder, once `name_folder` has named it.
        is_new: Whether there was nothing in it before.
        parent: The checkpoint to fine-tune from.
    """

    run_folder: Path
    is_new: bool
    parent: Path | None = None

    @property
    def options(self) -> Namespace:
        """The options of the command."""
        config: Namespace = self.config[self.subcommand] if self.subcommand else self.config
        return config

    def name_folder(self, checkpoint: str | None) -> None:
        """Sets `run_folder`. A prediction writes into the folder of its checkpoint's run, unless told otherwise."""
        options = self.options
        runs = Path(options.runs) / options.experiment
        if self.subcommand == "predict" and not options.run_id:
            run = run_of(checkpoint) if checkpoint else None
            if run is None and options.output is None:
                raise OptionError(f"{checkpoint} is not in the folder of a run: name a folder for the scores: --output")
            beside = place(options.output).parent if run is None else run
            self.run_folder, self.is_new = beside if isinstance(beside, Path) else Path(options.runs), False
            return
        if not options.run_id:
            claimed = runs if self.subcommand else None
            options.run_id = run_id(claimed, continues=checkpoint in (NEWEST, NEWEST_IF_ANY))
        self.run_folder = runs / options.run_id
        self.is_new = not self.run_folder.exists() or not any(self.run_folder.iterdir())

    def find_checkpoint(self, given: str) -> Path | None:
        """The checkpoint that --ckpt_path names; None if `fit` is to start a run that has none yet."""
        folder = self.run_folder / CHECKPOINTS
        if given == BEST:
            return best_checkpoint(folder)
        if given not in (NEWEST, NEWEST_IF_ANY):
            return find_checkpoint(given)
        found = newest_whole(folder)
        if found is None and (given == NEWEST or self.subcommand != "fit"):
            anew = ", or leave it out to start a run" if self.subcommand == "fit" else ""
            if anew and holds_a_run(self.run_folder):
                anew = ", or leave it out to start a run with another --run_id"
            raise OptionError(
                f"--ckpt_path {given}: {folder} has no complete checkpoint; name the run with --experiment and "
                f"--run_id, or a checkpoint by its path{anew}"
            )
        return found

    def find_parent(self) -> None:
        """Finds the checkpoint to fine-tune from; a fine-tuning that goes on no longer needs it."""
        options = self.options
        try:
            self.parent = options.finetune = find_checkpoint(options.finetune)
        except ShardingError:
            if not options.ckpt_path:
                raise

    def check_folder(self, given: str | None) -> None:
        """Checks that the command neither overwrites a run nor writes the results of another into its folder."""
        if self.subcommand in (None, "predict") or not holds_a_run(self.run_folder):
            return
        found = self.options.ckpt_path
        if found is None and not given:
            go_on = ", or continue this one with --ckpt_path last"
            if newest_whole(self.run_folder / CHECKPOINTS) is None:
                go_on = "; this one has saved no checkpoint to go on from"
            raise OptionError(f"{self.run_folder} has a run already: name another with --run_id{go_on}")
        if found is not None and not Path(found).resolve().is_relative_to(self.run_folder.resolve()):
            own = ", or continue this one with --ckpt_path last" if self.subcommand == "fit" else ""
            raise OptionError(
                f"{self.run_folder} has a run already, and --ckpt_path {found} is of another: give the "
                f"{self.subcommand} a folder of its own with --run_id{own}"
            )

    def check_same_data(self) -> None:
        """Checks that the results of a run's folder are all of the data that it was trained on."""
        if self.subcommand not in ("validate", "test") or not holds_a_run(self.run_folder):
            return
        saved = read_trainer_state(self.options.ckpt_path).get("ccn")
        if saved and not trained_on(saved, self.datamodule.dataset):
            raise OptionError(
                f"{self.run_folder} has the results of the data that its run was trained on, and "
                f"{self.datamodule.dataset.folder} are other data: give the {self.subcommand} a folder of its own with "
                f"--run_id, and name the checkpoint by its path: {self.options.ckpt_path}"
            )

    def plain_options(self) -> dict[str, Any]:
        """All options of the command as plain values."""
        plain: dict[str, Any] = json.loads(self.command_parser.dump(self.options, format="json", skip_none=False))
        return plain

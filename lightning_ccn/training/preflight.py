"""Everything about a run that can be found wrong on the login node, before it waits in a queue."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from lightning_ccn.data.datamodule import PageData
from lightning_ccn.errors import SubmitError
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import Plan, TorchRecStrategy, find_tables, make_plan, read_manifest
from lightning_ccn.sharding.estimate import Estimate, estimate
from lightning_ccn.training.trainer_cli import TrainingCLI


class Preflight(TrainingCLI):
    """`ccn fit` or `ccn predict` up to the point where a Trainer would be made: a login node has no GPU.

    Args:
        args: of the command, with the command itself.

    Raises:
        DataError, OptionError, ShardingError, SystemExit: as the command would, but for what takes its ranks.
    """

    def __init__(self, args: list[str]) -> None:
        logging.getLogger("lightning.fabric.utilities.seed").setLevel(logging.WARNING)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "LightningCLI's args parameter")  # sys.argv is `ccn submit`'s
            super().__init__(CTRModule, PageData, args=args, seed_everything_default=0, auto_configure_optimizers=False)

    def before_instantiate_classes(self) -> None:
        """Names the run, so that no folder is made for it: SLURM will give it a name."""
        self.options.run_id = "job"
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """None."""

    def _run_subcommand(self, subcommand: str) -> None:
        """Nothing."""

    def _last(self) -> str | None:
        """Of a fit: the job's own, when it starts."""
        return None if self.subcommand == "fit" else super()._last()

    @property
    def _strategy(self) -> TorchRecStrategy:
        strategy = self._get(self.config_init, "trainer.strategy")
        if not isinstance(strategy, TorchRecStrategy):
            name = strategy if isinstance(strategy, str) else type(strategy).__name__
            raise SubmitError(f"trainer.strategy is {name}: leave it out, or name TorchRecStrategy")
        return strategy

    def plan(self, world_size: int) -> Plan:
        """Where the tables will lie; none of them is made."""
        tables = find_tables(self.model.new_system())
        return make_plan(tables, world_size, self._strategy.table_optimizer, self._strategy.wanted_plan)

    def fits(self, world_size: int, memory_gib: float) -> Estimate:
        """The plan, held against the memory of a rank."""
        plan = self.plan(world_size)
        return estimate(plan.tables, world_size, memory_gib, plan.optimizer, self._strategy.wanted_plan)

    def check_data(self, world_size: int) -> None:
        """Opens what the command reads, with every part's header; there are no more ranks than a batch has lanes."""
        loaders = [self.datamodule.predict_dataloader] if self.subcommand == "predict" else []
        if self.subcommand == "fit":
            loaders = [self.datamodule.train_dataloader, self.datamodule.val_dataloader]
            loaders += [self.datamodule.test_dataloader] * self.options.test_after_fit
        for loader in loaders:
            loader().batches.order.lanes_of(0, world_size)

    def check_checkpoints(self) -> None:
        """Reads the manifest of every checkpoint that the command starts from."""
        given = self.options.get("ckpt_path")
        if self.subcommand == "fit" and given:
            raise SubmitError(
                f"--ckpt_path {given}: a job goes on from the newest checkpoint of its own folder; continue another "
                "run with RESUME=RUNS/EXPERIMENT/ID, or start from its weights with --finetune"
            )
        for path in (given, self.options.finetune):
            if path:
                read_manifest(path)

    def job_config(self, run: Path, nodes: int, gpus: int) -> str:
        """YAML of every option, for the job: in the folder `run`, on so many nodes and GPUs of each."""
        options = self.options.clone()
        options.runs, options.experiment, options.run_id = run.parent.parent, run.parent.name, run.name
        options.trainer.num_nodes, options.trainer.devices = nodes, max(gpus, 1)
        options.trainer.accelerator = "gpu" if gpus else "cpu"
        if self.subcommand == "fit":
            options.ckpt_path = "last"
        assert self.subcommand is not None
        text: str = self._parser(self.subcommand).dump(options, skip_none=False)
        return text


def check_writable(folder: Path) -> None:
    """Makes the folder of an experiment, and a file in it.

    Raises:
        SubmitError: it cannot be written to.
    """
    probe = folder / f".{os.getpid()}.probe"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise SubmitError(f"{folder} cannot be written to: {error}; choose another with --runs") from None

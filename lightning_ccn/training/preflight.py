"""What can be checked of a run on the login node, before its job waits in a queue."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from lightning_ccn.callbacks.same_run import check_same_run
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.orders import refuse_without_orders
from lightning_ccn.errors import OptionError, SubmitError
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import (
    Plan,
    TorchRecStrategy,
    newest_whole,
    read_trainer_state,
)
from lightning_ccn.sharding.estimate import HEADROOM, WORLD_SIZES, Estimate, estimate_plans
from lightning_ccn.sharding.plan import GIB
from lightning_ccn.sharding.torchrec_plan import module_plan
from lightning_ccn.training.given_checkpoint import CHECKPOINTS, NEWEST, NEWEST_IF_ANY
from lightning_ccn.training.trainer_cli import TrainingCLI

GPU_MEMORY = 80.0  # GiB of a GPU, if nothing else is said
RANKS_OF_A_NODE = 8


class Preflight(TrainingCLI):
    """`ccn fit` or `ccn predict` up to the point where a Trainer would be made: a login node has no GPU.

    Args:
        args: The command and its options.
        **settings: Further arguments of the command line.

    Raises:
        DataError, OptionError, ShardingError, SystemExit: The command would fail like this. What only its ranks can
            find is not checked.
    """

    def __init__(self, args: list[str], **settings: Any) -> None:
        usual: dict[str, Any] = {"seed_everything_default": 0, "parser_kwargs": {"prog": "ccn"}}
        super().__init__(CTRModule, PageData, args=args, auto_configure_optimizers=False, **(usual | settings))

    def before_instantiate_classes(self) -> None:
        """Sets a name, so that no folder is made for the run: its name will be the job's id."""
        self.options.run_id = "job"
        super().before_instantiate_classes()

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Makes no Trainer."""

    def run_subcommand(self, subcommand: str) -> None:
        """Runs nothing."""

    def own_folder(self) -> None:
        """Makes no folder."""

    def find_checkpoint(self, given: str) -> Path | None:
        """For a fit that continues None: the job will look for it when it starts.

        Raises:
            SubmitError: A fit names a checkpoint to continue from.
        """
        if self.subcommand != "fit":
            return super().find_checkpoint(given)
        if given not in (NEWEST, NEWEST_IF_ANY):
            raise SubmitError(
                f"--ckpt_path {given}: a job continues from the newest checkpoint in its own folder; to continue "
                "another run use RESUME=RUNS/EXPERIMENT/ID, to start from its weights --finetune"
            )
        return None

    @property
    def strategy(self) -> TorchRecStrategy:
        """The strategy of the options.

        Raises:
            OptionError: The options name another kind of strategy.
        """
        strategy = self.instantiated("trainer.strategy")
        if not isinstance(strategy, TorchRecStrategy):
            name = strategy if isinstance(strategy, str) else type(strategy).__name__
            raise OptionError(f"trainer.strategy is {name}: leave it out, or name TorchRecStrategy")
        return strategy

    @property
    def device_type(self) -> str:
        """`cuda` or `cpu`: what trainer.accelerator names; for `auto`, what this machine has."""
        accelerator = self.options.trainer.accelerator
        if accelerator == "auto":
            return "cuda" if torch.cuda.is_available() else "cpu"
        return "cuda" if accelerator in ("gpu", "cuda") else "cpu"

    def plan(
        self, world_size: int, device_type: str, memory_gib: float = GPU_MEMORY, per_node: int = RANKS_OF_A_NODE
    ) -> Plan:
        """Which rank will hold which table, on devices of this type. No table is allocated.

        Args:
            world_size: Number of ranks.
            device_type: `cuda` or `cpu`.
            memory_gib: Memory of a GPU; TorchRec's planner uses it.
            per_node: Ranks of a node, which that planner uses too; fewer if they would not divide `world_size`.
        """
        return self._plans(device_type, memory_gib, per_node)(world_size)

    def _plans(self, device_type: str, memory_gib: float, per_node: int) -> Callable[[int], Plan]:
        """Makes the plan for any number of ranks, as `TorchRecStrategy` does."""
        system, strategy = self.model.new_system(device_type), self.strategy
        return lambda ranks: module_plan(
            system,
            ranks,
            next(on_node for on_node in range(min(per_node, ranks), 0, -1) if ranks % on_node == 0),
            torch.device(device_type),
            strategy.table_optimizer,
            strategy.wanted_plan,
            strategy.automatic,
            strategy.planner_batch,
            round(memory_gib * GIB),
        )

    def fits(
        self,
        world_size: int,
        memory_gib: float,
        device_type: str,
        headroom: float = HEADROOM,
        per_node: int = RANKS_OF_A_NODE,
    ) -> Estimate:
        """The plan, compared with the memory of a rank in GiB."""
        sizes: tuple[int, ...] = WORLD_SIZES
        if self.strategy.automatic == "torchrec":  # its planner takes 10 s for 1,000 ranks
            sizes = tuple(ranks for ranks in WORLD_SIZES if ranks <= world_size)
        plans = self._plans(device_type, memory_gib, per_node)
        return estimate_plans(plans, world_size, memory_gib, headroom, sizes)

    def check_data(self, world_size: int) -> None:
        """Opens the splits that the command reads, and the header of every Parquet part.

        Raises:
            DataError: A part cannot be read, a batch has fewer pages than there are ranks, or the ids that are to be
                written, or the orders that are to be learned, are not there.
        """
        if self.subcommand == "predict":
            self.raw_ids()
        loaders = [self.datamodule.predict_dataloader] if self.subcommand == "predict" else []
        if self.subcommand == "fit":
            if self.model.reads_orders:
                for split in ("train", "validation"):
                    refuse_without_orders(self.datamodule.dataset, split)
            loaders = [self.datamodule.train_dataloader, self.datamodule.val_dataloader]
            loaders += [self.datamodule.test_dataloader] * self.options.test_after_fit
        for loader in loaders:
            loader().batches.order.lanes_of(0, world_size)

    def check_resume(self, run: Path) -> None:
        """Checks that a run continues as the same run.

        Raises:
            OptionError: An option that decides what it learns differs.
            ShardingError: None of its checkpoints is complete.
        """
        newest = newest_whole(run / CHECKPOINTS)
        if newest is not None:
            check_same_run(newest, read_trainer_state(newest), self.plain_options())

    def job_config(self, run: Path, nodes: int, gpus: int) -> str:
        """All options of the job, as YAML.

        Args:
            run: Folder of the run.
            nodes: Number of nodes.
            gpus: GPUs per node; 0 trains on the CPU.
        """
        options = self.options.clone()
        options.runs, options.experiment, options.run_id = run.parent.parent, run.parent.name, run.name
        options.trainer.num_nodes, options.trainer.devices = nodes, max(gpus, 1)
        options.trainer.accelerator = "gpu" if gpus else "cpu"
        if self.subcommand == "fit":
            options.ckpt_path = NEWEST_IF_ANY
        text: str = self.command_parser.dump(options, skip_none=False)
        return text

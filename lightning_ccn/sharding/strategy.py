"""A Lightning strategy for modules with TorchRec embedding tables.

`TorchRecStrategy` wraps the LightningModule in TorchRec's `DistributedModelParallel` (DMP). DMP shards the tables over
the ranks and replicates the rest, whose gradients `DistributedDataParallel` averages. The module holds plain
collections, which `configure_model` creates on the meta device, and needs no code for ranks:

    class Model(LightningModule):
        def configure_model(self):
            if not hasattr(self, "tables"):
                self.tables = EmbeddingBagCollection(device=torch.device("meta"), tables=[...])

        def configure_optimizers(self):
            return torch.optim.Adagrad(self.parameters(), lr=0.05)  # without the tables, which the strategy trains

    Trainer(strategy=TorchRecStrategy(table_lr=0.05), devices=2, use_distributed_sampler=False)

The caller is responsible for two things. Every rank needs the same number of batches: a lookup is a collective
operation, so if one rank stops early, the others wait for it. And the gradients of what `training_step` returns are
averaged over the ranks: if their batches differ in size, scale the loss by world size * own rows / all rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.optim import Optimizer
from torchrec.distributed import DistributedModelParallel

from lightning_ccn.sharding import process_group
from lightning_ccn.sharding.checks import (
    check_arguments,
    check_choices,
    check_device,
    check_optimizer,
    check_planner_batch,
    check_settings,
)
from lightning_ccn.sharding.errors import ShardingError, disk_words
from lightning_ccn.sharding.exchange_ahead import ExchangeAhead
from lightning_ccn.sharding.manifest import read_manifest
from lightning_ccn.sharding.plain_values import read_trainer_state
from lightning_ccn.sharding.plan import Automatic, Plan
from lightning_ccn.sharding.restore import load_module, load_optimizers, load_random_state
from lightning_ccn.sharding.saver import OnFailedSave, Saver
from lightning_ccn.sharding.sharders import BoundsCheck, CommunicationDtype
from lightning_ccn.sharding.state import (
    module_state,
    optimizer_state,
    random_state,
    set_random_state,
    table_optimizer_state,
)
from lightning_ccn.sharding.table_optimizers import find_table_optimizer
from lightning_ccn.sharding.tables import collections, dense_names, tables_hidden
from lightning_ccn.sharding.torchrec_plan import module_plan
from lightning_ccn.sharding.torchrec_private import forget_cached_rows
from lightning_ccn.sharding.wrap import refuse_sharded, reset_table_state, wrap


class TorchRecStrategy(DDPStrategy):
    """Shards the embedding tables of any LightningModule with TorchRec and replicates the rest.

    `configure_optimizers` of a module that has only tables returns None.

    Args:
        table_optimizer: The optimizer of all tables, a name in `sharding.table_optimizers`: `rowwise_adagrad`,
            `adagrad` or `sgd`. It runs in the backward pass, so no table has a gradient, and `configure_optimizers`
            leaves it out.
        table_lr: Learning rate of the tables at the start of the schedule; 0 keeps them as they are. Every step uses
            `table_lr * lr / initial_lr`, with the values of the first parameter group of the module's optimizer, so
            both optimizers follow one schedule.
        table_eps: Epsilon of the tables' optimizer (AdaGrad only), above 0: it keeps a row without gradients finite.
        plan: Placement of each table by name, see `sharding.plan`; `automatic` places the tables without an entry.
        automatic: `balanced`, or `torchrec` for TorchRec's planner.
        planner_batch: Rows of one rank's batch, for TorchRec's planner, which assumes 512 if None.
        bounds_check: What an id outside of its table does: `fatal` ends the run; `warning` and `ignore` look up row 0.
        communication_dtype: Type in which vectors and their gradients travel between ranks. `fp16` and `bf16` halve
            the bytes and round every value; `bf16` needs GPUs.
        exchange_ahead: Whether the ids of the next batch are sent while this one is computed, see
            `sharding.exchange_ahead`; by default on GPUs. It needs a loader that calls `begin_exchange`.
        tf32: Whether the layers' matrix products on GPUs round their inputs to TF32, for the whole process.
        plan_file: File to which rank 0 writes the plan as JSON; by default `plan.json` in `trainer.default_root_dir`.
        background_saves: Whether a thread writes the checkpoints while training continues, see `sharding.saver`.
        on_failed_save: `raise`, or `warn` to continue training. In both cases the earlier checkpoints are kept.
        find_unused_parameters: As in `DistributedDataParallel`, for the replicated part.
        timeout_seconds: Seconds after which a collective operation fails if a rank does not join it; longer than any
            rank works alone, such as on a save or between two batches.

    Raises:
        ShardingError: There is no such table optimizer, or a number cannot work. `setup` checks the other settings.
    """

    strategy_name = "torchrec"

    def __init__(
        self,
        table_optimizer: str = "rowwise_adagrad",
        table_lr: float = 0.05,
        table_eps: float = 1e-8,
        plan: dict[str, str] | None = None,
        automatic: Automatic = "balanced",
        planner_batch: int | None = None,
        bounds_check: BoundsCheck = "fatal",
        communication_dtype: CommunicationDtype = "fp32",
        exchange_ahead: bool | None = None,
        tf32: bool = False,
        plan_file: str | None = None,
        background_saves: bool = False,
        on_failed_save: OnFailedSave = "raise",
        find_unused_parameters: bool = False,
        timeout_seconds: float = 600.0,
    ) -> None:
        check_arguments(table_lr, table_eps, timeout_seconds, on_failed_save)
        self.timeout = timedelta(seconds=timeout_seconds)
        super().__init__(timeout=self.timeout)
        check_choices(bounds_check=bounds_check, communication_dtype=communication_dtype)
        check_planner_batch(planner_batch, automatic)
        find_table_optimizer(table_optimizer)  # raises an error for an unknown name
        self.table_optimizer = table_optimizer
        self.table_lr = table_lr
        self.table_eps = table_eps
        self.wanted_plan = plan
        self.automatic: Automatic = automatic
        self.planner_batch = planner_batch
        self.bounds_check: BoundsCheck = bounds_check
        self.communication_dtype: CommunicationDtype = communication_dtype
        self.exchange_ahead = exchange_ahead
        self.tf32 = tf32
        self.plan_file = plan_file
        self.background_saves = background_saves
        self.on_failed_save: OnFailedSave = on_failed_save
        self.find_unused_parameters = find_unused_parameters
        self.plan: Plan | None = None
        self._dmp: DistributedModelParallel | None = None
        self._ahead: ExchangeAhead | None = None
        self._saver: Saver | None = None
        self._random_state: dict[str, Tensor] = {}

    # ---------------------------------------------------------------------------------------------- a run

    def setup_environment(self) -> None:
        """Join the process group, see `sharding.process_group`."""
        process_group.prepare()
        super().setup_environment()
        process_group.join(self.timeout.total_seconds())
        if self._saver is None:
            group = dist.new_group(backend="gloo", timeout=self.timeout)
            assert isinstance(group, dist.ProcessGroup)  # every rank is a member
            self._saver = Saver(group, self.background_saves, self.on_failed_save, self.root_device)

    def setup(self, trainer: Trainer) -> None:
        """Shard the module unless it is sharded already, and create the optimizers for a fit.

        Raises:
            ShardingError: The Trainer's settings, the module or the plan do not work.
        """
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        check_settings(trainer, self.module)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if self._dmp is None or self._dmp.module is not self.module:
            self._dmp = self._shard(trainer)
            if self.exchanges_ahead:
                self._ahead = ExchangeAhead([found for _, found, _ in collections(self.module)], self.root_device)
        elif fitting:
            reset_table_state(self._dmp)  # for a second fit, Lightning resets the module's optimizer too
        self.model = self._dmp
        if self._ahead is not None:
            self._ahead.forget()
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _shard(self, trainer: Trainer) -> DistributedModelParallel:
        refuse_sharded(self.module)
        check_device(self.root_device.type, self.communication_dtype, self.tf32)
        if self.tf32:
            torch.set_float32_matmul_precision("high")
        self.plan = module_plan(
            self.module,
            self.world_size,
            self.num_processes,
            self.root_device,
            self.table_optimizer,
            self.wanted_plan,
            self.automatic,
            self.planner_batch,
        )
        rank_zero_info(f"\n{self.plan}\n")
        self._write_plan(self.plan, Path(self.plan_file or Path(trainer.default_root_dir) / "plan.json"))
        return wrap(
            self.module,
            self.plan,
            device=self.root_device,
            local_size=self.num_processes,
            lr=self.table_lr,
            eps=self.table_eps,
            find_unused_parameters=self.find_unused_parameters,
            seed=self.broadcast(torch.initial_seed()),
            bounds_check=self.bounds_check,
            communication_dtype=self.communication_dtype,
        )

    def _write_plan(self, plan: Plan, path: Path) -> None:
        problem = None
        if self.is_global_zero:
            try:
                plan.save(path)
            except OSError as error:
                problem = disk_words(error)
        if problem := self.broadcast(problem):  # on every rank, or the others would wait for rank 0
            raise ShardingError(f"the plan cannot be written: {problem}")

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Call `configure_optimizers` while `self.parameters()` leaves out the tables."""
        with tables_hidden(self.module):
            super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            check_optimizer(optimizer)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Set the tables' rate, then run the module's `training_step` through DMP.

        The kernels read the rate in the forward pass, and `zero_grad` of the fused optimizer passes it to them. Without
        this call, a scheduled rate would be one step late, and a resumed run would start with `table_lr`.
        """
        assert self._dmp is not None
        fused = self._dmp.fused_optimizer
        for group in fused.param_groups:
            group["lr"] = self.table_lr_now
        fused.zero_grad()
        if self._random_state:  # only now, since creating the loaders' iterators draws numbers too
            set_random_state(self._random_state, self.root_device)
            self._random_state = {}
        if self._ahead is not None:
            self._ahead.start_step(args[0] if args else None)
        return super().training_step(*args, **kwargs)

    def begin_exchange(self, batch: Any) -> None:
        """Start to send a batch's ids, if `exchange_ahead` is on; see `ExchangeAhead.begin`."""
        if self._ahead is not None:
            self._ahead.begin(batch)

    def pre_backward(self, closure_loss: Tensor) -> None:
        """Send the ids of the batch that was begun, while the backward pass runs."""
        if self._ahead is not None:
            self._ahead.send()
        super().pre_backward(closure_loss)

    def on_exception(self, exception: BaseException) -> None:
        """Tell the other ranks of the error; add the remedy to DDP's about layers without gradients."""
        if "Expected to have finished reduction in the prior iteration" in str(exception):
            exception.add_note(
                "some layers took no part in the loss: remove them, or use "
                "TorchRecStrategy(find_unused_parameters=True)"
            )
        process_group.fails(exception)

    def teardown(self) -> None:
        """End a run. The module stays sharded and on its device for the next one."""
        # DDPStrategy.teardown would move the module to the CPU, and separate the tables' weights from their kernels.
        assert self.cluster_environment is not None and self.accelerator is not None
        if self._saver is not None:
            self._saver.wait()
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()

    # ---------------------------------------------------------------------------------------------- attributes

    @property
    def module(self) -> LightningModule:
        """The LightningModule without its wrapper."""
        assert self.lightning_module is not None, "the Trainer connects the module first"
        return self.lightning_module

    @property
    def saver(self) -> Saver:
        """Saves the checkpoints."""
        assert self._saver is not None, "setup_environment comes first"
        return self._saver

    @property
    def exchanges_ahead(self) -> bool:
        """Whether a loader should call `begin_exchange` with the next batch before it hands out this one."""
        on = self.root_device.type == "cuda" if self.exchange_ahead is None else self.exchange_ahead
        return on and self.world_size > 1

    @property
    def table_lr_now(self) -> float:
        """The tables' learning rate in the next step."""
        groups = self.optimizers[0].param_groups if self.optimizers else []
        if not groups or "initial_lr" not in groups[0]:  # no layers to train, or no scheduler
            return self.table_lr
        return self.table_lr * float(groups[0]["lr"]) / float(groups[0]["initial_lr"])

    # ---------------------------------------------------------------------------------------------- checkpoints

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """True, because checkpoints are read into the shards that `setup` creates."""
        return True

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The parameter groups of an optimizer, without tensors; `save_checkpoint` adds the tensors."""
        return {"groups": optimizer_state(optimizer, dense_names(self.module))[1]}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the directory `filepath`, see `sharding.checkpoint`. Every rank must call it.

        Raises:
            ShardingError: A rank could not write and `on_failed_save` is `raise`; raised on every rank.
        """
        assert self._dmp is not None and self.plan is not None
        path = Path(self.broadcast(str(filepath)))
        state = module_state(self.module, checkpoint.pop("state_dict"))
        if "optimizer_states" in checkpoint:
            state |= table_optimizer_state(self.module, self._dmp)
            for optimizer in self.optimizers:
                state |= optimizer_state(optimizer, dense_names(self.module))[0]
            state |= random_state(self.global_rank, self.root_device)
        about = {
            "epoch": checkpoint["epoch"],
            "global_step": checkpoint["global_step"],
            "world_size": self.world_size,
            "table_optimizer": self.table_optimizer,
            "table_lr": self.table_lr,
            "plan": dict(self.plan.placement),
        }
        self.saver.save(path, state, checkpoint, about)

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Remove a directory that `save_checkpoint` wrote, once its successor is complete."""
        self.saver.remove(Path(filepath))

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Lightning's part of a checkpoint, with the manifest and the path under `sharded`.

        The tensors are loaded later, so `on_load_checkpoint` can check the manifest before any weight changes.

        Raises:
            ShardingError: The checkpoint is incomplete or has another format.
        """
        self.saver.wait()
        path = Path(self.broadcast(str(checkpoint_path)))
        manifest = read_manifest(path)
        return read_trainer_state(path) | {"sharded": {"path": path, "manifest": manifest}}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the weights, see `restore.load_module`; the checkpoint may have another world size, plan and kernels."""
        load_module(self.module, **checkpoint["sharded"], strict=strict, group=self.saver.group)
        for _, collection, _ in collections(self.module):
            forget_cached_rows(collection)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the state of both optimizers, and of the random generators if the world size is the same."""
        assert self._dmp is not None and self.plan is not None
        load_optimizers(
            self.module,
            self._dmp,
            self.plan,
            self.table_lr,
            self.optimizers,
            [saved["groups"] for saved in checkpoint["optimizer_states"]],
            **checkpoint["sharded"],
            group=self.saver.group,
        )
        if checkpoint["sharded"]["manifest"]["world_size"] == self.world_size:
            self._random_state = load_random_state(
                self.global_rank, self.root_device, **checkpoint["sharded"], group=self.saver.group
            )

"""A Lightning strategy for modules with TorchRec embedding tables.

`TorchRecStrategy` wraps the LightningModule itself in TorchRec's `DistributedModelParallel` (DMP): tables are sharded
over the ranks, everything else is replicated, its gradients averaged by `DistributedDataParallel`. The module holds
plain collections, built on `meta` in `configure_model`, and never mentions ranks:

    class Model(LightningModule):
        def configure_model(self):
            if not hasattr(self, "tables"):
                self.tables = EmbeddingBagCollection(device=torch.device("meta"), tables=[...])

        def configure_optimizers(self):
            return torch.optim.Adagrad(self.parameters(), lr=0.05)  # all but the tables: those are the strategy's

    Trainer(strategy=TorchRecStrategy(table_lr=0.05), devices=2, use_distributed_sampler=False)

Two things stay with the caller. Every rank must see the same number of batches: a lookup is a collective operation,
and a rank that stops early leaves the others waiting. And what `training_step` returns is averaged over ranks: where
they have unequal batches, scale it by world size * own rows / all rows.
"""

from __future__ import annotations

import atexit
import time
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

from lightning_ccn.sharding import plan as planning
from lightning_ccn.sharding.checkpoint import read_manifest, read_trainer_state
from lightning_ccn.sharding.checks import check_optimizer, refuse_what_cannot_work
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.restore import load_module, load_optimizers, load_random_state
from lightning_ccn.sharding.saver import OnFailedSave, Saver
from lightning_ccn.sharding.state import (
    module_state,
    optimizer_state,
    random_state,
    set_random_state,
    table_optimizer_state,
)
from lightning_ccn.sharding.tables import dense_names, tables_hidden
from lightning_ccn.sharding.wrap import FUSED, refuse_sharded, reset_table_state, wrap


class TorchRecStrategy(DDPStrategy):
    """Shards the embedding tables of any LightningModule with TorchRec and replicates the rest.

    A module of nothing but tables returns None from `configure_optimizers`.

    Args:
        table_optimizer: the optimizer of all tables: `rowwise_adagrad`, `adagrad` or `sgd`. It runs inside the
            backward pass, so no gradient of a table is ever held, and is no part of `configure_optimizers`.
        table_lr: its learning rate at the start of the schedule. Every step uses `table_lr * lr / initial_lr` of the
            first parameter group of the module's optimizer, so that one schedule drives both.
        table_eps: its epsilon (AdaGrad only).
        plan: placement by table name, see `sharding.plan`; tables without an entry are placed by `automatic`.
        automatic: `balanced`, or `torchrec` for TorchRec's planner.
        plan_file: where rank 0 writes the plan as JSON; default `plan.json` in `trainer.default_root_dir`.
        background_saves: write checkpoints in a thread, see `sharding.saver`.
        on_failed_save: `raise`, or `warn` and train on; either way no earlier checkpoint is removed then.
        find_unused_parameters: as in `DistributedDataParallel`, for the replicated part.
        timeout_seconds: after which a collective operation that some rank never joins fails on the others.

    Raises:
        ShardingError: an argument has no such value; further refusals come with `setup`.
    """

    strategy_name = "torchrec"

    def __init__(
        self,
        table_optimizer: planning.Optimizer = "rowwise_adagrad",
        table_lr: float = 0.05,
        table_eps: float = 1e-8,
        plan: dict[str, str] | None = None,
        automatic: planning.Automatic = "balanced",
        plan_file: str | None = None,
        background_saves: bool = False,
        on_failed_save: OnFailedSave = "raise",
        find_unused_parameters: bool = False,
        timeout_seconds: float = 1800.0,
    ) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_seconds))
        if table_optimizer not in FUSED:
            raise ShardingError(f"table_optimizer={table_optimizer!r}: use one of {', '.join(FUSED)}")
        self.table_optimizer: planning.Optimizer = table_optimizer
        self.table_lr = table_lr
        self.table_eps = table_eps
        self.wanted_plan = plan
        self.automatic: planning.Automatic = automatic
        self.plan_file = plan_file
        self.background_saves = background_saves
        self.on_failed_save: OnFailedSave = on_failed_save
        self.find_unused_parameters = find_unused_parameters
        self.plan: planning.Plan | None = None
        self._dmp: DistributedModelParallel | None = None
        self._saver: Saver | None = None
        self._random_state: dict[str, Tensor] = {}

    # ---------------------------------------------------------------------------------------------- a run

    def setup_environment(self) -> None:
        """Join the process group, and leave it when the interpreter exits.

        Not before: the sharded tables of a finished `fit` serve the `test` that follows.
        """
        super().setup_environment()
        atexit.unregister(_leave_process_group)
        atexit.register(_leave_process_group)
        if self._saver is None:
            group = dist.new_group(backend="gloo", timeout=self._timeout)
            self._saver = Saver(group, self.background_saves, self.on_failed_save)

    def setup(self, trainer: Trainer) -> None:
        """Shard the module unless it is, and make the optimizers for a fit.

        Raises:
            ShardingError: the trainer's settings, the module or the plan ask for what cannot work.
        """
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        refuse_what_cannot_work(trainer, self.module)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if self._dmp is None or self._dmp.module is not self.module:
            self._dmp = self._shard(trainer)
        elif fitting:
            reset_table_state(self._dmp)  # a second fit starts its optimizers afresh, the module's own too
        self.model = self._dmp
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _shard(self, trainer: Trainer) -> DistributedModelParallel:
        refuse_sharded(self.module)
        self.plan = planning.module_plan(
            self.module,
            self.world_size,
            self.num_processes,
            self.root_device,
            self.table_optimizer,
            self.wanted_plan,
            self.automatic,
        )
        rank_zero_info(f"\n{self.plan}\n")
        if self.is_global_zero:
            self.plan.save(self.plan_file or Path(trainer.default_root_dir) / "plan.json")
        return wrap(
            self.module,
            self.plan,
            device=self.root_device,
            local_size=self.num_processes,
            lr=self.table_lr,
            eps=self.table_eps,
            find_unused_parameters=self.find_unused_parameters,
            seed=self.broadcast(torch.initial_seed()),
        )

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Call `configure_optimizers` with the tables out of sight, so that `self.parameters()` is the rest."""
        with tables_hidden(self.module):
            super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            check_optimizer(optimizer)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Set the tables' rate, then run the module's `training_step` through DMP.

        The kernels read the rate in the forward pass and are handed it by the fused optimizer's `zero_grad`. Without
        this call a scheduled rate lags one step behind, and a resumed run starts with the constructor's.
        """
        assert self._dmp is not None
        fused = self._dmp.fused_optimizer
        for group in fused.param_groups:
            group["lr"] = self.table_lr_now
        fused.zero_grad()
        if self._random_state:  # not before this: making the loaders' iterators draws numbers too
            set_random_state(self._random_state, self.root_device)
            self._random_state = {}
        return super().training_step(*args, **kwargs)

    def on_exception(self, exception: BaseException) -> None:
        """Add to DDP's complaint about layers without gradients what to do here."""
        if "Expected to have finished reduction in the prior iteration" in str(exception):
            exception.add_note(
                "some layers took no part in the loss: take them out, or use "
                "TorchRecStrategy(find_unused_parameters=True)"
            )

    def teardown(self) -> None:
        """End a run. The module stays sharded and on its device, for the next."""
        # DDPStrategy's would move the module to the CPU, and the tables' weights away from their kernels.
        assert self.cluster_environment is not None and self.accelerator is not None
        if self._saver is not None:
            self._saver.wait()
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()

    # ---------------------------------------------------------------------------------------------- to read

    @property
    def module(self) -> LightningModule:
        """The module itself, not what wraps it."""
        assert self.lightning_module is not None, "a trainer connects the module first"
        return self.lightning_module

    @property
    def saver(self) -> Saver:
        """Saves the checkpoints, and knows how long the last one held up the training."""
        assert self._saver is not None, "setup_environment comes first"
        return self._saver

    @property
    def table_lr_now(self) -> float:
        """The tables' learning rate in the coming step; for logging."""
        groups = self.optimizers[0].param_groups if self.optimizers else []
        if not groups or "initial_lr" not in groups[0]:  # nothing but tables to train, or no scheduler
            return self.table_lr
        return self.table_lr * float(groups[0]["lr"]) / float(groups[0]["initial_lr"])

    # ---------------------------------------------------------------------------------------------- checkpoints

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """True: checkpoints are read into the shards, which `setup` makes."""
        return True

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimizer's parameter groups; `save_checkpoint` takes its tensors."""
        return {"groups": optimizer_state(optimizer, dense_names(self.module))[1]}

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write the directory `filepath`, see `sharding.checkpoint`; every rank calls it.

        Raises:
            ShardingError: on every rank, if any of them could not write and `on_failed_save` is `raise`.
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
            "plan": dict(self.plan.placement),
        }
        self.saver.save(path, state, checkpoint, about)

    def remove_checkpoint(self, filepath: str | Path) -> None:
        """Remove a directory that `save_checkpoint` wrote, once its successor is whole."""
        self.saver.remove(Path(filepath))

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        """Lightning's part of a checkpoint, with its manifest and path under `sharded`; no tensors yet.

        So a module's `on_load_checkpoint` sees everything before a weight is touched.

        Raises:
            ShardingError: the checkpoint is not whole, or of another format.
        """
        self.saver.wait()
        path = Path(self.broadcast(str(checkpoint_path)))
        manifest = read_manifest(path)
        return read_trainer_state(path) | {"sharded": {"path": path, "manifest": manifest}}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Read the weights, whatever world, plan and kernels wrote them; see `restore.load_module`."""
        load_module(self.module, **checkpoint["sharded"], strict=strict, group=self.saver.group)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Read the state of both optimizers, and of the random generators if the world has the same size."""
        assert self._dmp is not None and self.plan is not None
        load_optimizers(
            self.module,
            self._dmp,
            self.plan,
            self.optimizers,
            [saved["groups"] for saved in checkpoint["optimizer_states"]],
            **checkpoint["sharded"],
            group=self.saver.group,
        )
        if checkpoint["sharded"]["manifest"]["world_size"] == self.world_size:
            self._random_state = load_random_state(
                self.global_rank, self.root_device, **checkpoint["sharded"], group=self.saver.group
            )


def _leave_process_group() -> None:
    """Leave, and let gloo's threads come to rest before the interpreter is torn down.

    A gloo thread lets go of a collective's tensors only after it has announced its end, and needs the interpreter's
    lock for that. If it gets there once the interpreter is being torn down, Python ends the thread by unwinding its
    C++ frames, and the process aborts ("terminate called without an active exception", about one exit in ten on a
    busy machine). Destroying the group would join its threads if the sharded tables did not hold it too. So give up
    the lock here, with nothing running, for much longer than they need.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
        time.sleep(0.2)

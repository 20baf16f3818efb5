"""A Lightning strategy for modules with TorchRec embedding tables.

``TorchRecStrategy`` wraps the LightningModule itself in TorchRec's ``DistributedModelParallel`` (DMP): tables are sharded
over the ranks, everything else is replicated and averaged by ``DistributedDataParallel`` inside it. The module holds
plain ``EmbeddingBagCollection`` and ``EmbeddingCollection`` built on ``meta`` in ``configure_model`` and never mentions ranks:

    class Model(LightningModule):
        def configure_model(self):
            if not hasattr(self, "tables"):
                self.tables = EmbeddingBagCollection(device=torch.device("meta"), tables=[...])
        def configure_optimizers(self):
            return torch.optim.Adagrad(self.parameters(), lr=0.05)   # without the tables: those are the strategy's

    Trainer(strategy=TorchRecStrategy(table_lr=0.05), devices=2, use_distributed_sampler=False)

Two things stay with the caller. Every rank must see the same number of batches: a lookup is a collective operation, and
a rank that stops early leaves the others waiting. And the loss each rank returns is averaged over ranks, so for
batches of unequal size scale it by ``world_size * local / global``.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.model_parallel import DefaultDataParallelWrapper
from torchrec.distributed.types import ShardedModule

from lightning_ccn.sharding import plan as planning
from lightning_ccn.sharding.checks import refuse_what_cannot_work
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.tables import collections, draw_rows, initial_rows

_FUSED = {
    "rowwise_adagrad": EmbOptimType.EXACT_ROWWISE_ADAGRAD,
    "adagrad": EmbOptimType.EXACT_ADAGRAD,
    "sgd": EmbOptimType.EXACT_SGD,
}


class TorchRecStrategy(DDPStrategy):
    """Shard the embedding tables of any LightningModule with TorchRec; replicate the rest.

    Args:
        table_optimizer: the optimizer of all tables. It runs inside the backward pass, so the tables need no gradients
            in memory, and it is no part of ``configure_optimizers``.
        table_lr: its learning rate, at the start of the schedule: every step uses ``table_lr * lr / initial_lr`` of the
            first parameter group of the module's optimizer, so that one schedule drives both.
        table_eps: its epsilon (AdaGrad only).
        plan: placement by table name, see ``sharding.plan``; tables without an entry are placed by ``automatic``.
        automatic: ``balanced`` or ``torchrec`` (TorchRec's planner).
        plan_file: where rank 0 writes the plan as JSON; default ``plan.json`` in ``trainer.default_root_dir``.
        find_unused_parameters: as in ``DistributedDataParallel``, for the replicated part.
        timeout_seconds: after which a collective operation that a rank never joins fails on the others.
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
        find_unused_parameters: bool = False,
        timeout_seconds: float = 1800.0,
    ) -> None:
        super().__init__(timeout=timedelta(seconds=timeout_seconds))
        if table_optimizer not in _FUSED:
            raise ShardingError(f"table_optimizer={table_optimizer!r}: use one of {', '.join(_FUSED)}")
        self.table_optimizer: planning.Optimizer = table_optimizer
        self.table_lr = table_lr
        self.table_eps = table_eps
        self.wanted_plan = plan
        self.automatic: planning.Automatic = automatic
        self.plan_file = plan_file
        self.find_unused_parameters = find_unused_parameters
        self.plan: planning.Plan | None = None
        self._dmp: DistributedModelParallel | None = None

    # ------------------------------------------------------------------------------------------------ set up

    def setup_environment(self) -> None:
        """Join the process group, and leave it when the interpreter exits.

        The group must outlive ``teardown``: the sharded tables of a finished ``fit`` serve the ``test`` after it.
        """
        super().setup_environment()
        atexit.unregister(_leave_process_group)
        atexit.register(_leave_process_group)

    def setup(self, trainer: Trainer) -> None:
        """Shard the module (once), then make the optimizers if this is a fit."""
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        module = self.lightning_module
        refuse_what_cannot_work(trainer, module)
        fitting = trainer.state.fn == TrainerFn.FITTING
        if self._dmp is None or self._dmp.module is not module:
            self._dmp = self._shard(module, trainer)
        elif fitting:
            self._reset_table_state()
        self.model = self._dmp
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def _shard(self, module: LightningModule, trainer: Trainer) -> DistributedModelParallel:
        device = self.root_device
        if any(isinstance(child, ShardedModule) for child in module.modules()):
            raise ShardingError(
                "the module's tables are already sharded by another strategy: call fit, validate, test and predict on one "
                "Trainer, or make a new module and load a checkpoint into it"
            )
        self.plan = planning.module_plan(
            module, self.world_size, self.num_processes, device, self.table_optimizer, self.wanted_plan, self.automatic
        )
        rank_zero_info(f"\n{self.plan}\n")
        if self.is_global_zero:
            self.plan.save(self.plan_file or Path(trainer.default_root_dir) / "plan.json")
        fused = {"optimizer": _FUSED[self.table_optimizer], "learning_rate": self.table_lr, "eps": self.table_eps}
        start = initial_rows(module)
        # What the sharding draws depends on the world size; the caller's stream of random numbers must not.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            dmp = DistributedModelParallel(
                module,
                device=device,
                plan=planning.torchrec_plan(module, self.plan, self.num_processes, device),
                sharders=planning.sharders(fused),
                data_parallel_wrapper=_Replicas(static_graph=False, find_unused_parameters=self.find_unused_parameters),
            )
        draw_rows(module, start, seed=self.broadcast(torch.initial_seed()))
        return dmp

    def setup_optimizers(self, trainer: Trainer) -> None:
        """Call ``configure_optimizers`` with the tables out of sight, so that ``self.parameters()`` is the dense part."""
        with _tables_hidden(self.lightning_module):
            super().setup_optimizers(trainer)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                if any(parameter.is_meta for parameter in group["params"]):
                    raise ShardingError(
                        "the optimizer holds parameters on the meta device, taken before the module was sharded: build it in "
                        "configure_optimizers from self.parameters()"
                    )
                if group.get("initial_lr") == 0:
                    raise ShardingError(
                        "the first parameter group starts its schedule at lr 0, and the tables' rate is table_lr * lr / "
                        "initial_lr: give the optimizer its full lr and let the scheduler scale it"
                    )

    # ------------------------------------------------------------------------------------------------ the tables' optimizer

    @property
    def table_lr_now(self) -> float:
        """The tables' learning rate in the coming step; for logging."""
        group = self.optimizers[0].param_groups[0] if self.optimizers else {}
        if "initial_lr" not in group:  # no scheduler
            return self.table_lr
        return self.table_lr * float(group["lr"]) / float(group["initial_lr"])

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Set the tables' rate, then run the module's ``training_step`` through DMP.

        The kernels read the rate in the forward pass, and take it from the fused optimizer in its ``zero_grad``. Without
        this call a scheduled rate lags one step behind, and a resumed run starts with the constructor's.
        """
        assert self._dmp is not None
        fused = self._dmp.fused_optimizer
        for group in fused.param_groups:
            group["lr"] = self.table_lr_now
        fused.zero_grad()
        return super().training_step(*args, **kwargs)

    def _reset_table_state(self) -> None:
        """Zero the tables' optimizer state: a second ``fit`` starts its optimizers afresh, like the module's own."""
        assert self._dmp is not None
        for states in self._dmp.fused_optimizer.state_dict()["state"].values():
            for value in states.values():
                for shard in value.local_shards():
                    shard.tensor.zero_()

    def teardown(self) -> None:
        """End a run; the module stays sharded, on its device, for the next."""
        # Not DDPStrategy's: that moves the module to the CPU, which would tear the tables' weights from their kernels.
        assert self.cluster_environment is not None and self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


class _Replicas(DefaultDataParallelWrapper):
    """DDP for the dense part, if any of it is trained."""

    def wrap(self, dmp: DistributedModelParallel, env: Any, device: torch.device) -> None:
        sharded = set(DistributedModelParallel._sharded_parameter_names(dmp.module))
        if any(p.requires_grad for name, p in dmp.named_parameters() if name not in sharded):
            super().wrap(dmp, env, device)
        else:
            dmp.module.to(device)


@contextmanager
def _tables_hidden(module: nn.Module) -> Iterator[None]:
    """Take the tables' parameters out of ``module.parameters()`` for a while."""
    hidden = []
    for _, collection, child in collections(module):
        for holder in getattr(collection, child).values():
            hidden.append((holder, holder._parameters.pop("weight")))
    try:
        yield
    finally:
        for holder, weight in hidden:
            holder._parameters["weight"] = weight


def _leave_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()

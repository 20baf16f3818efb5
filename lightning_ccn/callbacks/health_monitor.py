"""Gradient norms, training speed, and statistics of the embedding tables."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.utils import get_total_norm
from torchrec.distributed import DistributedModelParallel

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.lightning_private import log_interval
from lightning_ccn.loggers.metrics_csv import MetricsCSV
from lightning_ccn.sharding import TorchRecStrategy
from lightning_ccn.sharding.sharded_rows import ShardedRows
from lightning_ccn.sharding.state import table_optimizer_state
from lightning_ccn.sharding.table_optimizers import find_table_optimizer
from lightning_ccn.sharding.tables import dense_names, sharded_tables

SAMPLED_ROWS = 4096  # per table


class HealthMonitor(L.Callback):
    """Logs, to every logger, what tells a healthy run from a sick one.

    - Every `log_every_n_steps`: `grad_norm`, the norm of the gradient of all dense parameters after its average over
      ranks; `grad_norm/<layer>`; and `items_per_second`, the training speed of all ranks since the last line or
      validation. Tables have no gradient norm: their optimizer runs within the backward pass, and keeps no gradient.
    - At each validation: `table_statistics`.
    """

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Starts the clock, and drops the lines of `metrics.csv` that this step and later ones will write again."""
        self._restart()
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.start_from(trainer.global_step)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Logs the gradient norms."""
        if _logged(trainer, trainer.global_step + 1):
            pl_module.log_dict(gradient_norms(pl_module))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: PageBatch, batch_idx: int
    ) -> None:
        """Counts this rank's items, and logs the speed."""
        self._items += batch.items
        if _logged(trainer, trainer.global_step):
            seconds = time.perf_counter() - self._since
            items = torch.tensor(float(self._items), device=trainer.strategy.root_device)
            pl_module.log("items_per_second", trainer.strategy.reduce(items, reduce_op="sum") / seconds)
            self._restart()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the table statistics, and starts the clock again."""
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return
        strategy = trainer.strategy
        assert isinstance(strategy, TorchRecStrategy) and isinstance(strategy.model, DistributedModelParallel)
        tables = {name: ShardedRows.of(table) for name, table in sharded_tables(pl_module).items()}
        accumulators = None
        if accumulator := find_table_optimizer(strategy.table_optimizer).accumulator:
            ending = f".optimizer.{accumulator}"
            accumulators = {
                key.removeprefix("tables.").removesuffix(ending): rows
                for key, rows in table_optimizer_state(pl_module, strategy.model).items()
                if key.endswith(ending)
            }

        def over_ranks(value: Tensor) -> Tensor:
            summed: Tensor = strategy.reduce(value.to(strategy.root_device), reduce_op="sum")
            return summed.cpu()

        values = table_statistics(tables, accumulators, over_ranks)
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step - 1)  # as Lightning numbers the step that was taken last
        self._restart()

    def _restart(self) -> None:
        self._items, self._since = 0, time.perf_counter()


def _logged(trainer: L.Trainer, step: int) -> bool:
    """Whether Lightning writes a line after this many steps."""
    every = log_interval(trainer)
    return every > 0 and step % every == 0


def gradient_norms(module: L.LightningModule) -> dict[str, Tensor]:
    """Norms of the dense gradients: `grad_norm` over all, `grad_norm/<layer>` for each of the system's layers."""
    layers: dict[str, list[Tensor]] = {}
    for parameter, name in dense_names(module).items():
        if parameter.grad is not None:
            layers.setdefault(name.split(".")[1], []).append(parameter.grad)  # model.<layer>. ...
    norms = {f"grad_norm/{layer}": get_total_norm(gradients) for layer, gradients in layers.items()}
    return {"grad_norm": get_total_norm(list(norms.values())), **norms} if norms else {}


def table_statistics(
    tables: Mapping[str, ShardedRows],
    accumulators: Mapping[str, ShardedRows] | None,
    over_ranks: Callable[[Tensor], Tensor],
) -> dict[str, float]:
    """The share of rows that have been trained, and quantiles of their norms, from a sample of evenly spaced rows.

    A row has been trained if its AdaGrad accumulator is not zero. SGD has none: then norms are over the whole sample.

    Args:
        tables: The tables by name, each sharded in any way.
        accumulators: AdaGrad's accumulators of the tables with rows on this rank, one value per row or per weight; None
            for SGD.
        over_ranks: Sums a float64 [n] on the CPU over ranks; called once.

    Returns:
        `tables/<name>/touched`, a share, and `tables/<name>/norm_p50`, `_p95` and `_p99`, left out if no row has been
        trained.
    """
    samples = [_sample(table.size()[0]) for table in tables.values()]
    squares = [_squares(table, sample) for table, sample in zip(tables.values(), samples, strict=True)]
    if accumulators is not None:
        squares += [_squares(accumulators.get(name), rows) for name, rows in zip(tables, samples, strict=True)]
    summed = over_ranks(torch.cat(squares)).split([len(value) for value in squares])
    found: dict[str, float] = {}
    for number, name in enumerate(tables):
        norm = summed[number].sqrt()
        if accumulators is not None:
            touched = summed[len(tables) + number] > 0
            found[f"tables/{name}/touched"] = touched.double().mean().item()
            norm = norm[touched]
        if len(norm):
            for percent in (50, 95, 99):
                found[f"tables/{name}/norm_p{percent}"] = norm.quantile(percent / 100).item()
    return found


def _sample(rows: int) -> Tensor:
    count = min(rows, SAMPLED_ROWS)
    return torch.arange(count) * rows // count


def _squares(table: ShardedRows | None, sample: Tensor) -> Tensor:
    """Sum of squares over this rank's part of each sampled row, float64 [sample], on the CPU."""
    total = torch.zeros(len(sample), dtype=torch.float64)
    for offset, values in table.parts if table else []:
        here = (sample >= offset[0]) & (sample < offset[0] + len(values))
        chosen = values[(sample[here] - offset[0]).to(values.device)].double()
        total[here] += chosen.square().reshape(len(chosen), -1).sum(1).cpu()
    return total

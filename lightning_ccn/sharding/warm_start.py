"""Fine-tuning: loads a checkpoint's weights into tables that may have grown, for any world size, plan and kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from lightning_ccn.sharding.checkpoint import load_tensors
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.manifest import read_manifest, saved_shapes
from lightning_ccn.sharding.sharded_rows import ShardedRows
from lightning_ccn.sharding.state import module_state, optimizer_state, shapes, table_optimizer_state
from lightning_ccn.sharding.strategy import TorchRecStrategy
from lightning_ccn.sharding.tables import dense_names

NewRows = Literal["drawn", "row_zero", "group_mean"]
Groups = Callable[[str], Tensor | None]  # name of a table -> int64 [rows], the group of each row; None for no groups

TABLES = "tables"


@dataclass
class WarmStartReport:
    """Which tables and layers were loaded from a checkpoint, and which were not.

    Attributes:
        taken: Entries whose values were loaded.
        tables: How many tables were loaded, and how many the module has.
        layers: The same of the layers' parameters.
        grown: Tables with more rows than in the checkpoint: name -> (rows loaded, rows of the table).
        fresh: Entries that the checkpoint lacks or has in another shape; they keep their initial values.
        dropped: Entries that the checkpoint has and the module lacks.
    """

    taken: list[str] = field(default_factory=list)
    tables: tuple[int, int] = (0, 0)
    layers: tuple[int, int] = (0, 0)
    grown: dict[str, tuple[int, int]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """The numbers of loaded tables and layers, and one line for each entry that is not loaded as it is."""
        counts = [f"{n} of {m} {what}" for what, (n, m) in self.counts.items()]
        lines = [f"{' and '.join(counts)} start from the checkpoint"]
        lines += [f"grown: {name}, {old:,} rows loaded, {rows - old:,} new" for name, (old, rows) in self.grown.items()]
        lines += [f"NOT loaded, starts fresh: {name}" for name in self.fresh]
        lines += [f"NOT used, the module has no such entry: {name}" for name in self.dropped]
        return "\n".join(lines)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """How many were loaded, and how many the module has."""
        return {TABLES: self.tables, "parameters of layers": self.layers}


class WarmStart(L.Callback):
    """Loads a checkpoint's weights when a fit starts; optimizers, schedule, loops and metrics start anew.

    Tables may have grown: the old rows are loaded unchanged, and `new_rows` determines the new ones. The
    `WarmStartReport` lists every entry that was not loaded.

    Args:
        checkpoint: Directory of the checkpoint.
        new_rows: `drawn` keeps the rows that the table's `init_fn` drew; `row_zero` copies row 0 (by convention the
            unknown id); `group_mean` takes the mean of the old rows of the row's group, or row 0 if the group has no
            old rows or the table has no groups.
        groups: The groups of each table's rows, for `group_mean`.
        accumulators: Whether to load the optimizers' state too, which keeps the steps as small as they were. New rows
            start without state.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        new_rows: NewRows = "row_zero",
        groups: Groups | None = None,
        accumulators: bool = False,
    ) -> None:
        self.checkpoint = Path(checkpoint)
        self.new_rows, self.groups, self.accumulators = new_rows, groups, accumulators
        self.report = WarmStartReport()

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Loads the weights. Lightning calls this after the tables have been sharded.

        Raises:
            ShardingError: The checkpoint is incomplete, none of its tables fits, or a table has shrunk.
        """
        strategy = trainer.strategy
        assert isinstance(strategy, TorchRecStrategy)
        manifest = read_manifest(self.checkpoint)
        here = module_state(pl_module, pl_module.state_dict())
        if self.accumulators:
            here |= self._optimizers(strategy, pl_module)
        saved = saved_shapes(manifest)
        kinds = ("tables.", "module.", "optimizer.") if self.accumulators else ("tables.", "module.")
        wanted = {
            key: shape
            for key, shape in saved.items()
            if key.startswith(kinds) and (self.accumulators or ".optimizer." not in key)
        }
        state = self._matching(here, wanted)
        self._count(here, {f"module.{name}" for name in dense_names(pl_module).values()})
        self._refuse_a_stranger()
        load_tensors(self.checkpoint, state, strategy.saver.group)
        for key, (old, _) in self.report.grown.items():
            if key.endswith(".weight"):
                self._fill(strategy, key, here[key], old)
        rank_zero_info(f"fine-tuning from {self.checkpoint}\n{self.report}")

    def _refuse_a_stranger(self) -> None:
        """A model without any of the tables would be trained from scratch; one without the layers may be meant."""
        for what, (loaded, there) in self.report.counts.items():
            if loaded or not there:
                continue
            text = (
                f"none of the {there} {what} here starts from checkpoint {self.checkpoint}, because names or shapes "
                f"differ ({', '.join(self.report.fresh[:3])}, ...): take the model that the checkpoint is of"
            )
            if what == TABLES:
                raise ShardingError(f"{text}, or train from scratch")
            rank_zero_warn(text)

    def _count(self, here: Mapping[str, object], layers: set[str]) -> None:
        taken = set(self.report.taken)
        tables = {key for key in here if key.startswith("tables.") and key.endswith(".weight")}
        self.report.tables = len(tables & taken), len(tables)
        self.report.layers = len(layers & taken), len(layers)

    def _optimizers(self, strategy: TorchRecStrategy, module: L.LightningModule) -> dict[str, Tensor | ShardedRows]:
        assert isinstance(strategy.model, DistributedModelParallel)
        state: dict[str, Tensor | ShardedRows] = dict(table_optimizer_state(module, strategy.model))
        for optimizer in strategy.optimizers:
            state |= optimizer_state(optimizer, dense_names(module))[0]
        return state

    def _matching(
        self, here: Mapping[str, Tensor | ShardedRows], saved: Mapping[str, tuple[int, ...]]
    ) -> dict[str, object]:
        """The entries to load, with the tensors to fill; also fills the report."""
        own = shapes(here)
        self.report = WarmStartReport(dropped=sorted(saved.keys() - own.keys()))
        state: dict[str, object] = {}
        for key, shape in own.items():
            there = saved.get(key)
            if there == shape:
                state[key] = here[key]
            elif there is not None and key.startswith("tables.") and there[1:] == shape[1:]:
                if there[0] > shape[0]:
                    raise ShardingError(
                        f"checkpoint {self.checkpoint}: {key} has {there[0]:,} rows, and only {shape[0]:,} here; a "
                        "vocabulary can only grow: prepare the new data as an extension of the old"
                    )
                value = here[key]
                assert isinstance(value, ShardedRows)
                state[key] = _first(value, there[0])
                self.report.grown[key] = (there[0], shape[0])
            else:
                self.report.fresh.append(key)
                continue
            self.report.taken.append(key)
        return state

    @torch.no_grad()
    def _fill(self, strategy: TorchRecStrategy, key: str, table: Tensor | ShardedRows, old: int) -> None:
        """Sets the initial values of a table's new rows; every rank sets its own rows."""
        assert isinstance(table, ShardedRows)
        if self.new_rows == "drawn":
            return
        zero = torch.zeros(table.size()[1:], device=strategy.root_device)
        for offset, values in table.parts:
            if offset[0] == 0:
                zero[offset[1] : offset[1] + values.shape[1]] = values[0].float()
        zero = strategy.reduce(zero, reduce_op="sum")  # one rank holds the row
        group = self.groups(key.split(".")[1]) if self.new_rows == "group_mean" and self.groups else None
        means, known = None, None
        if group is not None:
            group = group.to(strategy.root_device)
            means, known = _group_means(strategy, table, group, old)
        for offset, values in table.parts:
            first = max(old - offset[0], 0)
            new = values[first:]
            columns = slice(offset[1], offset[1] + values.shape[1])
            new.copy_(zero[columns].expand_as(new))
            if means is not None and known is not None and group is not None:
                of_row = group[offset[0] + first : offset[0] + len(values)]
                rows = torch.nonzero(known[of_row]).squeeze(1)
                new[rows] = means[of_row[rows], columns].to(new.dtype)


def _first(table: ShardedRows, rows: int) -> ShardedRows:
    """The first rows of a table, as views."""
    parts = [(offset, values[: max(rows - offset[0], 0)]) for offset, values in table.parts]
    return ShardedRows(torch.Size((rows, *table.size()[1:])), parts)


def _group_means(strategy: TorchRecStrategy, table: ShardedRows, group: Tensor, old: int) -> tuple[Tensor, Tensor]:
    """Mean of the old rows of each group, float [groups, dim], and whether the group has any, bool [groups]."""
    groups, device = int(group.max()) + 1, strategy.root_device
    total = torch.zeros(groups, table.size()[1], device=device)
    count = torch.bincount(group[1:old], minlength=groups)  # without row 0, the unknown id
    for offset, values in _first(table, old).parts:
        start = 1 if offset[0] == 0 else 0
        of_row = group[offset[0] + start : offset[0] + len(values)]
        columns = slice(offset[1], offset[1] + values.shape[1])
        total[:, columns].index_add_(0, of_row, values[start:].float())
    total = strategy.reduce(total, reduce_op="sum")
    return total / count.clamp(min=1)[:, None], count > 0

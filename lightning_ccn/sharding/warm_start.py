"""Fine-tuning: a checkpoint's weights into tables that have grown, whatever world, plan and kernels wrote them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torchrec.distributed import DistributedModelParallel

from lightning_ccn.sharding.checkpoint import load_tensors, read_manifest, saved_shapes
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.sharded_rows import ShardedRows
from lightning_ccn.sharding.state import module_state, optimizer_state, shapes, table_optimizer_state
from lightning_ccn.sharding.strategy import TorchRecStrategy
from lightning_ccn.sharding.tables import dense_names

NewRows = Literal["drawn", "row_zero", "group_mean"]
Groups = Callable[[str], Tensor | None]  # table -> int64 [rows], the group of each row; None: it has no groups


@dataclass
class WarmStartReport:
    """What came from a checkpoint and what did not, by table and layer.

    Attributes:
        taken: tables and layers whose values were loaded.
        grown: tables with more rows here: name -> (rows loaded, rows here).
        fresh: what the checkpoint does not have, or has in another shape: it starts as it was drawn.
        dropped: what the checkpoint has and the module does not.
    """

    taken: list[str] = field(default_factory=list)
    grown: dict[str, tuple[int, int]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One line a kind; kinds of which there is nothing are left out."""
        lines = [f"loaded: {len(self.taken)} tables and layers"]
        lines += [f"grown: {name}, {old:,} rows loaded, {rows - old:,} new" for name, (old, rows) in self.grown.items()]
        lines += [f"NOT loaded, starts fresh: {name}" for name in self.fresh]
        lines += [f"NOT used, the module has no such entry: {name}" for name in self.dropped]
        return "\n".join(lines)


class WarmStart(L.Callback):
    """Loads a checkpoint's weights when a fit starts: optimizer, schedule, loops and metrics stay fresh.

    Tables may have grown: old rows are kept bit for bit, and new rows start as `new_rows` says. Nothing is skipped
    in silence: see `WarmStartReport`.

    Args:
        checkpoint: the directory.
        new_rows: `drawn` leaves them as the table's `init_fn` drew them; `row_zero` copies row 0 (by convention the
            unknown id); `group_mean` takes the mean of the old rows of the row's group, or row 0 where the group has
            none or the table has no groups.
        groups: for `group_mean`.
        accumulators: keep the optimizers' state too (new rows start with none): steps stay as small as they were.
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
        """Loads; Lightning calls it after the tables are sharded.

        Raises:
            ShardingError: the checkpoint is not whole, nothing of it fits, or a table has fewer rows here.
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
        if not self.report.taken:
            raise ShardingError(f"checkpoint {self.checkpoint}: no table and no layer of it is in the module")
        load_tensors(self.checkpoint, state, strategy.saver.group)
        for key, (old, _) in self.report.grown.items():
            if key.endswith(".weight"):
                self._fill(strategy, key, here[key], old)
        rank_zero_info(f"fine-tuning from {self.checkpoint}\n{self.report}")

    def _optimizers(self, strategy: TorchRecStrategy, module: L.LightningModule) -> dict[str, Tensor | ShardedRows]:
        assert isinstance(strategy.model, DistributedModelParallel)
        state: dict[str, Tensor | ShardedRows] = dict(table_optimizer_state(module, strategy.model))
        for optimizer in strategy.optimizers:
            state |= optimizer_state(optimizer, dense_names(module))[0]
        return state

    def _matching(
        self, here: Mapping[str, Tensor | ShardedRows], saved: Mapping[str, tuple[int, ...]]
    ) -> dict[str, object]:
        """What of the checkpoint goes where; fills the report."""
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
                        f"checkpoint {self.checkpoint}: {key} has {there[0]:,} rows and here {shape[0]:,}; a "
                        "vocabulary only grows: prepare the new data as an extension of the old"
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
        """Gives new rows of a table their start; every rank works on its own rows."""
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
    """Mean of the old rows of each group, float [groups, dim], and whether it has any, bool [groups]."""
    groups, device = int(group.max()) + 1, strategy.root_device
    total = torch.zeros(groups, table.size()[1], device=device)
    count = torch.bincount(group[1:old], minlength=groups)  # row 0 is no member: it is the unknown id
    for offset, values in _first(table, old).parts:
        start = 1 if offset[0] == 0 else 0
        of_row = group[offset[0] + start : offset[0] + len(values)]
        columns = slice(offset[1], offset[1] + values.shape[1])
        total[:, columns].index_add_(0, of_row, values[start:].float())
    total = strategy.reduce(total, reduce_op="sum")
    return total / count.clamp(min=1)[:, None], count > 0

"""Metrics of parts of a test split: by how often an item was shown, by the trigger's category, by the user's intent."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import FOR_TRIGGER, ITEM, ITEMS, PAGE_ID
from lightning_ccn.data.parquet import decode, list_column, open_part
from lightning_ccn.errors import DataError
from lightning_ccn.evaluation.click_metric import ClickMetric, SummedMetric
from lightning_ccn.evaluation.metrics import AUC, Calibration

# By name, as `cold_auc` in metrics.json
SEGMENT_METRICS: dict[str, type[ClickMetric]] = {"auc": AUC, "calibration": Calibration}


class ItemCount(SummedMetric):
    """Number of items of a segment."""

    items: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("items", torch.int64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Counts a batch: [items] each."""
        self.items += logits.numel()

    def compute(self) -> Tensor:
        """int64 scalar."""
        return self.items


class SegmentMetrics(nn.Module):
    """Metrics by segment, as sums over batches and, in `finish`, over ranks.

    - `cold` and `warm`: items that training seldom showed, the unknown item among them, and the others.
    - `alike` and `unlike`: items of the trigger's category, and those of another one; an item is in neither if one of
      the two categories is unknown. Without categories, there are none.
    - `for_trigger` and `for_promotion`: items of pages whose user came for the trigger, or for the promotion. Only a
      synthetic world knows.

    Args:
        cold: Bool [rows of the item table], which items are cold.
        category: Name of the item attribute that is the category; None: there are no categories.
        came_for_trigger: Int64 [.], ids of the pages whose user came for the trigger; None: nobody knows.
    """

    def __init__(self, cold: Tensor, category: str | None, came_for_trigger: Tensor | None = None) -> None:
        super().__init__()
        self.cold, self.category, self.came_for_trigger = cold, category, came_for_trigger
        segments = ["cold", "warm", *(["alike", "unlike"] if category else [])]
        segments += ["for_trigger", "for_promotion"] if came_for_trigger is not None else []
        kinds: dict[str, type[SummedMetric]] = {**SEGMENT_METRICS, "items": ItemCount}
        self.metrics = nn.ModuleDict(
            {f"{segment}_{name}": metric() for segment in segments for name, metric in kinds.items()}
        )

    def update(self, logits: Tensor, batch: PageBatch) -> None:
        """Adds a batch with clicks; it may be empty.

        Args:
            logits: Float [items].
            batch: The batch.
        """
        assert batch.clicks is not None
        cold = self.cold[batch.item[ITEM].values()[batch.target]]
        parts: Mapping[str, Tensor] = {"cold": cold, "warm": ~cold}
        if self.category is not None:
            category = batch.feature_of_item(self.category)  # [distinct]
            of_target, of_trigger = category[batch.target], category[batch.trigger][batch.page]
            known = (of_target != 0) & (of_trigger != 0)
            parts = {**parts, "alike": known & (of_target == of_trigger), "unlike": known & (of_target != of_trigger)}
        if self.came_for_trigger is not None:
            for_trigger = torch.isin(batch.page_id, self.came_for_trigger)[batch.page]
            parts = {**parts, "for_trigger": for_trigger, "for_promotion": ~for_trigger}
        for key, metric in self.metrics.items():
            part = parts[key.rpartition("_")[0]]
            assert isinstance(metric, SummedMetric)
            metric.update(logits[part], batch.clicks[part])

    def finish(self) -> tuple[dict[str, Tensor], list[str]]:
        """The metrics by name, and which are undefined and why; the next batch starts anew. A collective operation."""
        values, undefined = {}, []
        for key, metric in self.metrics.items():
            assert isinstance(metric, SummedMetric)
            values[key] = metric.compute()
            if isinstance(metric, ClickMetric) and metric.undefined:
                undefined.append(f"{key} undefined: {metric.undefined}")
            metric.reset()
        return values, undefined


def item_impressions(dataset: Dataset, rank: int = 0, world_size: int = 1) -> Tensor:
    """How often each item is shown on the training pages of a share of the row groups; the shares add up.

    Args:
        dataset: The data.
        rank, world_size: Which share this process reads.

    Returns:
        int64 [rows of the item table].

    Raises:
        DataError: There are no training pages.
    """
    if not dataset.splits["train"].pages:
        raise DataError(
            f"{dataset.folder / 'train'}: no page views, so no item's impressions can be counted; leave out "
            "model.cold_below"
        )
    shown = np.zeros(dataset.schema.tables[ITEM].rows, np.int64)
    row_groups = 0
    for path in dataset.parts("train"):
        with open_part(path) as file:
            for group in range(file.num_row_groups):
                row_groups += 1
                if row_groups % world_size == rank:
                    shown += np.bincount(list_column(decode(file, group, [ITEMS]), ITEMS).values, minlength=len(shown))
    return torch.from_numpy(shown)


def pages_for_trigger(dataset: Dataset) -> Tensor | None:
    """Ids of the test pages whose user came for the trigger, int64; None if the test split does not say, as a log's."""
    found = []
    for path in dataset.parts("test"):
        with open_part(path) as file:
            if FOR_TRIGGER not in file.schema_arrow.names:
                return None
            for group in range(file.num_row_groups):
                rows = decode(file, group, [PAGE_ID, FOR_TRIGGER])
                page_id, for_trigger = (np.asarray(rows[name]) for name in (PAGE_ID, FOR_TRIGGER))
                found.append(page_id[for_trigger == 1])
    return torch.from_numpy(np.concatenate(found)) if found else None

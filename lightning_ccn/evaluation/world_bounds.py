"""What only a synthetic world knows of its test split; for reports, never for a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import ATTAINABLE_PROBABILITY, CLICKS, TRUE_PROBABILITY
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.evaluation.metrics import AUC

_COLUMNS = [TRUE_PROBABILITY, ATTAINABLE_PROBABILITY, CLICKS]


def has_truth(dataset: Dataset) -> bool:
    """Whether the test split knows its probabilities: that of a synthetic world does, no log does."""
    for path in dataset.parts("test"):
        with open_part(path) as file:
            return set(_COLUMNS) <= set(file.schema_arrow.names)
    return False


def truth(dataset: Dataset, rank: int, world_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """True probabilities beside the clicks of the test split; every rank has row groups of its own.

    Yields:
        (true probability, attainable probability, click) of a row group's exposed items, [items] each.
    """
    seen = 0
    for path in dataset.parts("test"):
        with open_part(path) as file:
            for group in range(file.metadata.num_row_groups):
                seen += 1
                if seen % world_size != rank:
                    continue
                rows = decode(file, group, _COLUMNS)
                columns = [rows[name] for name in _COLUMNS]
                values = [column.values for column in columns if isinstance(column, Ragged)]
                yield values[0], values[1], values[2]


def world_bounds(dataset: Dataset, rank: int = 0, world_size: int = 1) -> dict[str, float]:
    """`oracle_auc` (true probabilities) and `attainable_auc` of a synthetic world's test split; else nothing.

    Every rank calls it, and reads its share.
    """
    if not has_truth(dataset):
        return {}
    metrics = {"oracle_auc": AUC(), "attainable_auc": AUC()}
    for true, attainable, clicks in truth(dataset, rank, world_size):
        clicks_of_group = torch.from_numpy(clicks.copy())
        for metric, probability in zip(metrics.values(), (true, attainable), strict=True):
            metric.update(torch.logit(torch.from_numpy(probability.copy())).float(), clicks_of_group)
    return {name: float(metric.compute()) for name, metric in metrics.items()}

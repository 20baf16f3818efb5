"""The best AUCs that a model could reach on a synthetic world's test split, from its known click probabilities."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import ATTAINABLE_PROBABILITY, CLICKS, TRUE_PROBABILITY
from lightning_ccn.data.parquet import decode, list_column, open_part
from lightning_ccn.evaluation.metrics import AUC

_COLUMNS = [TRUE_PROBABILITY, ATTAINABLE_PROBABILITY, CLICKS]


def _has_probabilities(dataset: Dataset) -> bool:
    """Whether the test split stores click probabilities, as only a synthetic world's does."""
    for path in dataset.parts("test"):
        with open_part(path) as file:
            return set(_COLUMNS) <= set(file.schema_arrow.names)
    return False


def _probabilities(dataset: Dataset, rank: int, world_size: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Click probabilities and clicks of the test split, by row group; the ranks take turns.

    Yields:
        (true probability, attainable probability, click) of a row group's exposed items, [items] each.
    """
    row_groups = 0
    for path in dataset.parts("test"):
        with open_part(path) as file:
            for group in range(file.metadata.num_row_groups):
                row_groups += 1
                if row_groups % world_size != rank:
                    continue
                rows = decode(file, group, _COLUMNS)
                true, attainable, clicks = (list_column(rows, name).values for name in _COLUMNS)
                yield true, attainable, clicks


def world_bounds(
    dataset: Dataset, rank: int = 0, world_size: int = 1, device: torch.device | None = None
) -> dict[str, float]:
    """`oracle_auc` and `attainable_auc` of a synthetic world's test split; nothing for other datasets.

    The oracle scores by the true probability, which includes hidden intent and page clickiness; no model can. The
    attainable AUC is that of the probability given what a log shows. Every rank must call this, and reads its share.

    Args:
        dataset: The data.
        rank, world_size: Which share of the split this process reads.
        device: Where the sums are kept; ranks on GPUs add them up there.
    """
    if not _has_probabilities(dataset):
        return {}
    metrics = {"oracle_auc": AUC().to(device), "attainable_auc": AUC().to(device)}
    for true, attainable, clicks in _probabilities(dataset, rank, world_size):
        clicks_of_group = torch.from_numpy(clicks.copy()).to(device)
        for metric, probability in zip(metrics.values(), (true, attainable), strict=True):
            metric.update(torch.logit(torch.from_numpy(probability.copy())).float().to(device), clicks_of_group)
    return {name: float(metric.compute()) for name, metric in metrics.items()}

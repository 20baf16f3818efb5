"""`yardstick.json` of a dataset folder: how well an item's training click rate, without a model, ranks the test split.

It takes one pass over the training split, so it is computed where data is made or checked, and not at every fit.
"""

from __future__ import annotations

import json

import torch

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.places import Place
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError
from lightning_ccn.evaluation.heuristics import click_rate_scores
from lightning_ccn.evaluation.metrics import CTRMetrics

FILE = "yardstick.json"
CLICK_RATE = "an item's training click rate"
METRICS_SHOWN = ("auc", "page_gauc")  # the scores are ranks of items more than probabilities of clicks
COUNTED_SPLITS = ("train", "test")


def write_yardstick(folder: Place) -> dict[str, float] | None:
    """Scores the test split by click rate, and writes the metrics beside the data.

    Args:
        folder: Dataset folder.

    Returns:
        The metrics by name; None, and no file, where items cannot be compared: no clicks, one label, no test split.
    """
    metrics = CTRMetrics()
    try:
        dataset = Dataset.open(folder)
        if not dataset.splits["test"].items:
            return None
        for scores, clicks, page_lengths in click_rate_scores(dataset):
            metrics.update(torch.from_numpy(scores), torch.from_numpy(clicks), torch.from_numpy(page_lengths))
    except DataError:
        return None
    found = {name: float(value) for name, value in metrics.compute().items() if name in METRICS_SHOWN}
    if metrics.undefined:
        return None
    path, text = folder / FILE, json.dumps({"metrics": found, "counts": _counts(dataset)}, indent=1) + "\n"
    if isinstance(path, StorePath):  # which shows a file when it is whole
        path.write_text(text)
    else:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.rename(path)
    return found


def read_yardstick(dataset: Dataset) -> dict[str, float]:
    """The metrics that `write_yardstick` wrote; nothing if it did not, or for other pages than the folder has now."""
    try:
        saved = json.loads((dataset.folder / FILE).read_text())
        if saved["counts"] != _counts(dataset):
            return {}
        return {name: float(saved["metrics"][name]) for name in METRICS_SHOWN}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _counts(dataset: Dataset) -> dict[str, list[int]]:
    """Pages, items and clicks of the splits that the yardstick was made from."""
    return {
        split: [dataset.splits[split].pages, dataset.splits[split].items, dataset.splits[split].clicks]
        for split in COUNTED_SPLITS
    }

"""The commands of `ccn data`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from lightning_ccn.data.check import check as check_folder
from lightning_ccn.data.convert.ebnerd import convert_ebnerd
from lightning_ccn.data.convert.mind import convert_mind
from lightning_ccn.data.world import generate_world
from lightning_ccn.data.yardsticks import yardstick_scores
from lightning_ccn.metrics import CTRMetrics

__all__ = ["check", "convert_ebnerd", "convert_mind", "generate_world", "yardsticks"]


def check(folder: Path, write_stats: bool = False) -> int:
    """Validate a dataset folder that another job wrote; exit code 1 when it is not valid.

    Args:
        folder: the dataset folder.
        write_stats: write stats.json if there are no errors, which makes the folder usable.
    """
    report = check_folder(folder, write_stats)
    print(report, file=sys.stderr if report.errors else sys.stdout)
    return 1 if report.errors else 0


def yardsticks(folder: Path) -> int:
    """Score the test split without a model: by an item's training click rate, and by recency.

    Args:
        folder: the dataset folder.
    """
    metrics: dict[str, CTRMetrics] = {}
    for name, scores, clicks, page_lengths in yardstick_scores(folder):
        update = (torch.from_numpy(scores), torch.from_numpy(clicks), torch.from_numpy(page_lengths))
        metrics.setdefault(name, CTRMetrics()).update(*update)
    table = Table("yardstick", "auc", "page_gauc")
    for name, metric in metrics.items():
        values = metric.compute()
        table.add_row(name, f"{values['auc']:.4f}", f"{values['page_gauc']:.4f}")
    Console().print(table)
    return 0

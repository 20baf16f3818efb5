"""Two packages on the same pages: what a new model would change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import OptionError
from lightning_ccn.evaluation.metrics import ORDER_METRICS
from lightning_ccn.export.log_ids import LogIds
from lightning_ccn.export.measure import MeasuredPages, PageScores
from lightning_ccn.serving import Scorer
from lightning_ccn.serving.id_lookup import IdLookup
from lightning_ccn.serving.request import Rows

SHOWN = ("auc", "page_gauc", "logloss", "calibration", *ORDER_METRICS)
MOST_CHANGED = 5  # pages that a report names
ITEM = "item"


@dataclass(frozen=True)
class PackageComparison:
    """What a new package changes.

    Attributes:
        old, new: The metrics of each, by name; empty for a split without clicks.
        pages: Number of pages.
        shift: Mean of new - old over the probabilities.
        change: Mean of |new - old|.
        rank_correlation: Spearman's, over all items.
        page_correlation: The mean of Spearman's over the pages on which both order the items.
        first_changed: Share of the pages whose first item is another one.
        changed_most: Ids of the pages with the largest mean |new - old|, and that mean.
    """

    old: dict[str, float]
    new: dict[str, float]
    pages: int
    shift: float
    change: float
    rank_correlation: float
    page_correlation: float
    first_changed: float
    changed_most: list[tuple[int, float]]

    def __str__(self) -> str:
        """A report of some lines."""
        lines = [
            f"{name}: {self.old[name]:.5f} -> {self.new[name]:.5f}"
            for name in SHOWN
            if name in self.old and name in self.new
        ]
        lines += [
            f"on {self.pages:,} pages, probabilities change by {self.change:.4f} on average, their mean by "
            f"{self.shift:+.4f}",
            f"rank correlation: {self.rank_correlation:.4f} over all items, {self.page_correlation:.4f} within a page; "
            f"{self.first_changed:.1%} of the pages get another first item",
            "pages that change most: " + ", ".join(f"{page} ({mean:.4f})" for page, mean in self.changed_most),
        ]
        return "\n".join(lines)


def compare_packages(old: Path, new: Path, dataset: Dataset, split: str, pages: int) -> PackageComparison:
    """Scores the first pages of a split with both packages.

    Each package gets the ids of the log, so the new one may have larger vocabularies.

    Raises:
        PackageError: A folder is no whole package.
        OptionError: The old package reads a feature that the data do not have.
    """
    before, after = Scorer(old), Scorer(new)
    by_old, by_new = (_scores(scorer, dataset, split, pages) for scorer in (before, after))
    return _compare(by_old, by_new)


def _scores(scorer: Scorer, dataset: Dataset, split: str, pages: int) -> PageScores:
    manifest, schema = scorer.manifest, dataset.schema
    there = {*(feature.name for feature in schema.user), *schema.numbers, *schema.page_numbers}
    wanted = [feature.name for feature in manifest.user]
    wanted += [number.name for number in (*manifest.numbers, *manifest.page_numbers)]
    if missing := [name for name in wanted if name not in there]:
        raise OptionError(
            f"--against: the old package reads {', '.join(missing)}, which {dataset.folder} does not have; compare "
            "packages that read the same features"
        )
    chosen = MeasuredPages(dataset, split, pages, manifest)
    of_log = _OfLog(dataset, scorer)
    return chosen.by_scorer(scorer, of_log)


class _OfLog:
    """Translates rows of a dataset's tables to those of a package, by way of the log's ids."""

    def __init__(self, dataset: Dataset, scorer: Scorer) -> None:
        self._manifest, self._lookups, self._ids = scorer.manifest, scorer.lookups, LogIds(dataset)

    def __call__(self, rows: Rows) -> Rows:
        return replace(
            rows,
            user=[
                self._rows(feature.table, values)
                for feature, values in zip(self._manifest.user, rows.user, strict=True)
            ],
            items=self._rows(ITEM, rows.items),
            short=self._rows(ITEM, rows.short),
            long=self._rows(ITEM, rows.long),
            trigger=int(self._rows(ITEM, np.array([rows.trigger]))[0]),
        )

    def _rows(self, table: str, rows: np.ndarray) -> np.ndarray:
        lookup: IdLookup = self._lookups[table]
        if lookup.kind == "any" or not self._ids.known(table):
            return np.where(rows < lookup.rows, rows, 0)
        return lookup(self._ids.of(table, rows), table)


def _compare(old: PageScores, new: PageScores) -> PackageComparison:
    page = np.repeat(np.arange(len(new.lengths)), new.lengths)
    change = np.abs(new.probability - old.probability)
    of_page = np.bincount(page, change, len(new.lengths)) / np.maximum(new.lengths, 1)
    most = np.argsort(-of_page, kind="stable")[:MOST_CHANGED]
    starts = np.cumsum(new.lengths)[:-1]
    pairs = list(zip(np.split(old.probability, starts), np.split(new.probability, starts), strict=True))
    within = [_spearman(before, after) for before, after in pairs if np.ptp(before) > 0 and np.ptp(after) > 0]
    return PackageComparison(
        old=old.metrics(),
        new=new.metrics(),
        pages=len(new.lengths),
        shift=float((new.probability - old.probability).mean()),
        change=float(change.mean()),
        rank_correlation=float(spearmanr(old.probability, new.probability).statistic),
        page_correlation=float(np.mean(within)) if within else float("nan"),
        first_changed=float(np.mean([before.argmax() != after.argmax() for before, after in pairs])),
        changed_most=[(int(new.page_id[at]), float(of_page[at])) for at in most],
    )


def _spearman(before: np.ndarray, after: np.ndarray) -> Any:
    return np.corrcoef(rankdata(before), rankdata(after))[0, 1]

"""What a package says about pages of a split, beside what the model says that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from lightning_ccn.data import page_row
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.orders import has_orders
from lightning_ccn.data.parquet import PageRows, list_column, value_column
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.evaluation.metrics import CTRMetrics
from lightning_ccn.evaluation.order_metrics import OrderMetrics
from lightning_ccn.export.rebuild import Model
from lightning_ccn.serving.manifest import Manifest
from lightning_ccn.serving.request import Rows, standardise
from lightning_ccn.serving.request_times import Times
from lightning_ccn.serving.scorer import Scorer

BATCH = 128  # pages that the model scores at a time


@dataclass(frozen=True)
class PageScores:
    """Scores of pages, one page after another.

    Attributes:
        page_id: Int64 [pages].
        lengths: Int64 [pages], number of items of each page.
        probability: Float32 [items], of a click.
        order: Float32 [items], the probability of an order; None of a model without an order head.
        clicks, orders: Float32 [items]; None where the split has none.
    """

    page_id: np.ndarray
    lengths: np.ndarray
    probability: np.ndarray
    order: np.ndarray | None
    clicks: np.ndarray | None
    orders: np.ndarray | None

    def metrics(self) -> dict[str, float]:
        """AUC, log loss and the others of a test, by name; none without clicks, and none of orders without an order."""
        if self.clicks is None or not len(self.probability):
            return {}
        metrics = CTRMetrics()
        metrics.update(_logit(self.probability), torch.from_numpy(self.clicks), torch.from_numpy(self.lengths))
        found = dict(metrics.compute())
        if self.order is not None and self.orders is not None and self.orders.any():
            of_orders = OrderMetrics()
            of_orders.update(_logit(self.order), torch.from_numpy(self.orders))
            found |= of_orders.compute()
        return {name: float(value) for name, value in found.items()}


def _logit(probability: np.ndarray) -> Tensor:
    return torch.logit(torch.from_numpy(probability), eps=1e-7)


class MeasuredPages:
    """The first pages of a split that have items.

    Args:
        dataset: An open dataset folder.
        split: `train`, `validation` or `test`.
        most: How many pages.
        manifest: Of a package that is made for this data; says how many behaviours are read.

    Raises:
        DataError, OptionError: The pages cannot be read, or the folder is cut to fewer behaviours than are read.
    """

    def __init__(self, dataset: Dataset, split: str, most: int, manifest: Manifest) -> None:
        self.split, self._manifest = split, manifest
        self._clicks = dataset.splits[split].clicks > 0  # else the split may have no such column
        self._orders = self._clicks and manifest.gives_orders and has_orders(dataset, split)
        batches = PageBatches(
            dataset,
            split,
            batch_pages=BATCH,
            short_length=manifest.short_length,
            long_length=manifest.long_length if manifest.reads_long else 0,
            with_clicks=self._clicks,
            with_gaps=manifest.reads_gaps,
            with_orders=self._orders,
        )
        self._collator, self._groups, left = batches.collator, [], most
        for group in range(len(batches.row_groups)):
            rows = batches.row_group(group)
            lengths = list_column(rows, page_row.ITEMS).lengths
            kept = np.flatnonzero(lengths)[:left]
            if len(kept):
                self._groups.append((rows, kept))
            if not (left := left - len(kept)):
                break

    def first(self, most: int) -> Iterator[tuple[PageRows, int]]:
        """The first pages, each as page rows and its number among them."""
        return islice(((rows, int(page)) for rows, kept in self._groups for page in kept), most)

    def by_scorer(self, scorer: Scorer, translate: Callable[[Rows], Rows] | None = None) -> PageScores:
        """The scores of a package, one request a page.

        Args:
            scorer: The scorer of the package.
            translate: Makes rows of the package's tables of rows of the data's; None: they are the same.
        """
        rows = (row for group, kept in self._groups for row in page_requests(group, kept, self._manifest))
        scores = [scorer.score_rows(translate(row) if translate else row) for row in rows]
        return self._scores(
            [each.probability for each in scores],
            [each.order_probability for each in scores if each.order_probability is not None],
        )

    @torch.no_grad()
    def by_model(self, model: Model) -> PageScores:
        """The scores of a model that looks up as in training, in batches."""
        clicks, orders = [], []
        for rows, kept in self._groups:
            ready = self._collator.prepare(rows)  # leaves pages without items out
            for start in range(0, len(kept), BATCH):
                batch = self._collator.batch(ready.between(start, min(start + BATCH, len(kept))))
                prediction = model(batch)
                clicks.append(prediction.logit.float().sigmoid().numpy())
                if (logit := prediction.order_logit) is not None:
                    orders.append(logit.sigmoid().numpy())
        return self._scores(clicks, orders)

    def _scores(self, probability: list[np.ndarray], order: list[np.ndarray]) -> PageScores:
        none = np.zeros(0, np.float32)
        ids, lengths = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        labels = {page_row.CLICKS: [none]} if self._clicks else {}
        labels |= {page_row.PURCHASES: [none]} if self._orders else {}
        for rows, kept in self._groups:
            items = list_column(rows, page_row.ITEMS)
            ids.append(value_column(rows, page_row.PAGE_ID)[kept])
            lengths.append(items.lengths[kept])
            for name, found in labels.items():
                found += [of_page(rows[name], page).astype(np.float32) for page in kept]
        joined = {name: np.concatenate(found) for name, found in labels.items()}
        return PageScores(
            page_id=np.concatenate(ids),
            lengths=np.concatenate(lengths),
            probability=np.concatenate([none, *probability]),
            order=np.concatenate(order) if order else None,
            clicks=joined.get(page_row.CLICKS),
            orders=joined.get(page_row.PURCHASES),
        )


def page_requests(rows: PageRows, pages: np.ndarray, manifest: Manifest) -> Iterator[Rows]:
    """Pages as requests to a package that is made for their data.

    Args:
        rows: Page rows, as `parquet.decode` returns them.
        pages: Int [.], which of them.
        manifest: Of the package.

    Raises:
        RequestError: A number is too far from the training data's to be computed with.
    """
    numbers = [(entry, rows[entry.name]) for entry in manifest.numbers]
    page_numbers = [(entry, rows[entry.name]) for entry in manifest.page_numbers]

    def integers(name: str, page: int) -> np.ndarray:
        return of_page(rows[name], page).astype(np.int64)

    def of_long(name: str, page: int) -> np.ndarray:
        return integers(name, page) if name in rows else np.zeros(0, np.int64)

    def times(page: int) -> Times:
        short = integers(page_row.SHORT_TIMES, page)
        return Times(int(integers(page_row.TIME, page)[0]), short, of_long(page_row.LONG_TIMES, page))

    for page in pages:
        items = integers(page_row.ITEMS, page)
        columns = [standardise(of_page(of, page).astype(float), entry, entry.name) for entry, of in numbers]
        of_pages = [standardise(of_page(of, page).astype(float), entry, entry.name) for entry, of in page_numbers]
        yield Rows(
            user=[integers(feature.name, page) for feature in manifest.user],
            items=items,
            short=integers(page_row.SHORT_ITEMS, page),
            long=of_long(page_row.LONG_ITEMS, page),
            trigger=int(integers(page_row.TRIGGER, page)[0]),
            numbers=np.stack(columns, 1).astype(np.float32) if columns else np.zeros((len(items), 0), np.float32),
            page_numbers=np.concatenate([*of_pages, np.zeros(0)]).astype(np.float32),
            times=times(page) if manifest.reads_gaps else None,
        )


def of_page(column: np.ndarray | Ragged, page: int) -> np.ndarray:
    """The values of one page: all of a list, or one."""
    if isinstance(column, Ragged):
        return column.values[column.offsets[page] : column.offsets[page + 1]]
    return column[page : page + 1]

"""Metrics of click prediction, kept as sums that add up over batches and ranks.

All take logits, not probabilities: in float32, probabilities near 1 no longer tell items apart. A metric that is
undefined for the data (such as the AUC when no item was clicked) is NaN, and `undefined` says why.

To add a metric: a subclass of `click_metric.ClickMetric` and its entry in `METRICS`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional
from torchmetrics import Metric, MetricCollection

from lightning_ccn.evaluation.click_metric import ClickMetric, SummedMetric
from lightning_ccn.evaluation.page_ranks import PageRanks
from lightning_ccn.evaluation.ranking_metrics import HitAt1, HitAt3, PageMRR, PageNDCG


class AUC(ClickMetric):
    """Area under the ROC curve, from one histogram of the logits per label (33 MiB in all); a tie counts half.

    Resolution: logits closer than `(|logit| + 1) / 2^18` may share a bin and then count as tied; that is 4e-6 at 0 and
    1.5e-5 at -3. The AUC is within 1e-5 of the exact one while the logits' standard deviation is 50 such steps or more.
    Beyond a magnitude of 15, where a probability is 0 or 1 to six digits, logits within 0.4 % may share a bin.

    >>> auc = AUC()
    >>> auc.update(torch.tensor([-1.0, -2.0, -2.0, -3.0]), torch.tensor([1, 1, 0, 0]))
    >>> auc.compute().item()
    0.875
    """

    title = "AUC"
    higher_is_better = True

    # The bits of positive floats, read as integers, have the order of the floats, and their leading bits are bins of
    # constant relative width. The bits of |logit| + 1 give bins that are evenly wide around 0: 2^18 per doubling
    # from 1 to 16, the range of CTR models, and 2^8 per doubling above.
    low, knee, high = 127 << 23, 131 << 23, 1 << 31  # the bits of 1 and of 16; an upper bound of all bits
    fine, coarse = 23 - 18, 23 - 8  # trailing bits to drop
    side = ((knee - low) >> fine) + ((high - knee) >> coarse)  # bins on each side of 0

    histogram: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("histogram", torch.int64, 2, 2 * self.side)  # label, bin

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch: see `ClickMetric.update`."""
        super().update(logits, clicks)
        bits = (logits.float().abs() + 1).view(torch.int32)
        distance = (bits.clamp(max=self.knee) - self.low) >> self.fine
        distance += (bits - self.knee).clamp(min=0) >> self.coarse
        bins = self.side + torch.where(logits < 0, -1 - distance, distance)
        index = torch.where(clicks > 0, 2 * self.side, 0) + bins
        self.histogram.view(-1).index_add_(0, index, torch.ones_like(index))

    def value(self) -> Tensor:
        """Share of (clicked, unclicked) pairs that the logits order correctly."""
        negative, positive = self.histogram  # [bins] each, lowest logits first
        twice_below = 2 * negative.cumsum(0) - negative  # whole numbers: no order of summation changes them
        return (positive.double() * twice_below).sum() / (2 * positive.sum().double() * negative.sum())

    def why_undefined(self) -> str | None:
        """See `ClickMetric.why_undefined`."""
        return super().why_undefined() or self._one_label()


class PageAUC(ClickMetric):
    """Page-grouped AUC: the exact AUC within each page, averaged with the number of the page's items as weight.

    This is DIN's impression-weighted GAUC with pages as groups. Pages without both labels have no AUC and are left out.
    All items of a page must come in the same `update`.
    """

    title = "page AUC"
    higher_is_better = True

    pages: Tensor
    weight: Tensor
    weighted_auc: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("pages", torch.int64)
        self.add_sum("weight", torch.int64)
        self.add_sum("weighted_auc", torch.float64)

    def update(self, logits: Tensor, clicks: Tensor, page_lengths: Tensor) -> None:  # type: ignore[override]
        """Adds a batch of whole pages.

        Args:
            logits: Float [items], page-major.
            clicks: [items] of any dtype, 0 or 1.
            page_lengths: Int64 [pages]; sums to `items`.

        Raises:
            ValueError: The shapes of logits and clicks differ or are not [items].
        """
        super().update(logits, clicks)
        ranks, pages = PageRanks.of(logits, page_lengths), page_lengths.numel()
        clicked = clicks[ranks.order] > 0
        # Mann-Whitney: a clicked item of rank r beats r - 1 items, of which the clicked ones do not count.
        page_clicks = ranks.page_sums(clicked, pages)
        wins = ranks.page_sums(ranks.shared(ranks.position) * clicked, pages) - page_clicks * (page_clicks + 1) / 2
        pairs = page_clicks * (page_lengths - page_clicks)
        weight = page_lengths * (pairs > 0)
        self.pages += pages
        self.weight += weight.sum()
        self.weighted_auc += (weight * wins / pairs.clamp(min=1)).sum()

    def value(self) -> Tensor:
        """Weighted mean of the pages' AUCs."""
        return self.weighted_auc / self.weight

    def why_undefined(self) -> str | None:
        """See `ClickMetric.why_undefined`."""
        no_page = f"none of the {self.pages} pages has both labels" if self.weight == 0 else None
        return super().why_undefined() or no_page


class LogLoss(ClickMetric):
    """Mean cross entropy of clicks and logits, in nats per impression (Eq. 11 of the CCN paper)."""

    title = "log loss"
    higher_is_better = False

    loss: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("loss", torch.float64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch: see `ClickMetric.update`."""
        super().update(logits, clicks)
        self.loss += functional.binary_cross_entropy_with_logits(logits.double(), clicks.double(), reduction="sum")

    def value(self) -> Tensor:
        """Mean over the items."""
        return self.loss / self.items


class NormalizedEntropy(LogLoss):
    """Log loss over the entropy of the mean click rate; 1: as good as predicting that rate for every item."""

    title = "normalized entropy"
    higher_is_better = False

    def value(self) -> Tensor:
        """Log loss over entropy."""
        rate = self.clicks.double() / self.items
        return super().value() / -(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate))

    def why_undefined(self) -> str | None:
        """See `ClickMetric.why_undefined`."""
        return super().why_undefined() or self._one_label()


class Calibration(ClickMetric):
    """Predicted clicks over observed clicks; above 1 the model predicts too many."""

    title = "calibration"

    predicted: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("predicted", torch.float64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch: see `ClickMetric.update`."""
        super().update(logits, clicks)
        self.predicted += logits.double().sigmoid().sum()

    def value(self) -> Tensor:
        """Sum of the probabilities over the clicks."""
        return self.predicted / self.clicks

    def why_undefined(self) -> str | None:
        """See `ClickMetric.why_undefined`."""
        return super().why_undefined() or (self._one_label() if self.clicks == 0 else None)


class Volume(SummedMetric):
    """Number of pages and items."""

    pages: Tensor
    items: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_sum("pages", torch.int64)
        self.add_sum("items", torch.int64)

    def update(self, logits: Tensor, page_lengths: Tensor) -> None:
        """Counts a batch: logits [items], page_lengths [pages]. Pages without items do not count."""
        self.pages += (page_lengths > 0).sum()
        self.items += logits.numel()

    def compute(self) -> dict[str, Tensor]:
        """int64 scalars `pages` and `items`."""
        return {"pages": self.pages, "items": self.items}


# What every run reports and `ccn compare` compares, by name in metrics.json. An own package may add entries.
METRICS: dict[str, type[ClickMetric]] = {
    "auc": AUC,
    "page_gauc": PageAUC,
    "logloss": LogLoss,
    "normalized_entropy": NormalizedEntropy,
    "calibration": Calibration,
    "ndcg": PageNDCG,
    "mrr": PageMRR,
    "hit_at_1": HitAt1,
    "hit_at_3": HitAt3,
}


# What only runs with an order head report: the label of an item is its order, and the logit that of p(order).
ORDER_METRICS: dict[str, type[ClickMetric]] = {
    "order_auc": AUC,
    "order_logloss": LogLoss,
    "order_calibration": Calibration,
}


def metric_titles() -> dict[str, str]:
    """Title of each metric by its name; `intent_auc` is reported only by systems that estimate an intent."""
    of_orders = {name: f"{metric.title} of orders" for name, metric in ORDER_METRICS.items()}
    return {name: metric.title for name, metric in METRICS.items()} | {"intent_auc": "intent AUC"} | of_orders


def metric_directions() -> dict[str, bool | None]:
    """Whether a higher value is better, for each metric by its name; None: neither high nor low is."""
    found = {name: metric.higher_is_better for name, metric in (METRICS | ORDER_METRICS).items()}
    return found | {"intent_auc": AUC.higher_is_better}


class CTRMetrics(MetricCollection):
    """The metrics that every run reports, updated once per batch.

    `compute` gives a dict of scalars: one per entry of `METRICS` (float64, NaN where undefined), `pages` and `items`
    (int64). It is a collective call where torch.distributed is initialised.
    """

    def __init__(self) -> None:
        metrics: dict[str, Metric | MetricCollection] = {name: metric() for name, metric in METRICS.items()}
        metrics["volume"] = Volume()
        # Metrics with the same `update` share their sums. torchmetrics would guess this from the first batch, whose
        # sums may be equal by chance.
        groups: dict[Callable[..., None], list[str]] = {}
        for name, metric in metrics.items():
            groups.setdefault(type(metric).update, []).append(name)
        super().__init__(metrics, compute_groups=list(groups.values()))

    def update(self, logits: Tensor, clicks: Tensor, page_lengths: Tensor) -> None:  # type: ignore[override]
        """Adds a batch of whole pages, which may be empty.

        Args:
            logits: Float [items], page-major.
            clicks: [items] of any dtype, 0 or 1.
            page_lengths: Int64 [pages]; sums to `items`.
        """
        super().update(logits=logits, clicks=clicks, page_lengths=page_lengths)

    @property
    def undefined(self) -> list[str]:
        """See `why_undefined`."""
        return why_undefined(self)


def why_undefined(collection: MetricCollection) -> list[str]:
    """Which metrics of the last `compute` are NaN, and why: "auc undefined: every one of the 123 labels is 0"."""
    metrics = collection.items(keep_base=True, copy_state=False)
    reasons = {name: metric.undefined for name, metric in metrics if isinstance(metric, ClickMetric)}
    return [f"{name} undefined: {reason}" for name, reason in reasons.items() if reason is not None]

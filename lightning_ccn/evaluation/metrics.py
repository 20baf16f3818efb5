"""Metrics of click prediction, as sums: they add up over batches and over ranks.

All take logits, not probabilities, which near 1 have lost in float32 what tells items apart. A metric that does
not exist for what was seen (the AUC of labels that are all 0, say) is NaN and says why in `undefined`.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from torchmetrics import Metric, MetricCollection


class ClickMetric(Metric):
    """What the metrics of clicks share: counts of what was seen, and words for what is undefined.

    `compute` gives a float64 scalar over all batches and ranks since `reset`. Where torch.distributed is
    initialised it is a collective call.

    Attributes:
        undefined: why the last `compute` gave NaN; None if it did not.
    """

    full_state_update = False
    undefined: str | None = None

    items: Tensor
    clicks: Tensor
    broken: Tensor

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=_sum_over_ranks)
        for name in ("items", "clicks", "broken"):
            _add_sum(self, name, torch.int64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch, which may be empty.

        Args:
            logits: float [items].
            clicks: [items], any dtype, 0 or 1.

        Raises:
            ValueError: the shapes differ or are not [items].
        """
        if logits.dim() != 1 or logits.shape != clicks.shape:
            raise ValueError(f"logits are {list(logits.shape)}, clicks {list(clicks.shape)}; both must be [items]")
        self.items += logits.numel()
        self.clicks += (clicks > 0).sum()
        self.broken += (~logits.isfinite()).sum()

    def compute(self) -> Tensor:
        """The metric, NaN where it is undefined."""
        self.undefined = self._why_undefined()
        return self._value() if self.undefined is None else self.items.new_full((), torch.nan, dtype=torch.float64)

    @abstractmethod
    def _value(self) -> Tensor:
        """The metric where it is defined."""

    def _why_undefined(self) -> str | None:
        if self.items == 0:
            return "no impression was seen"
        if self.broken > 0:
            return f"{self.broken} of the {self.items} logits are NaN or infinite"
        return None

    def _one_label(self) -> str | None:
        if self.clicks == 0:
            return f"every one of the {self.items} labels is 0"
        if self.clicks == self.items:
            return f"every one of the {self.items} labels is 1"
        return None


class AUC(ClickMetric):
    """Area under the ROC curve, ties counted half, from a histogram of the logits for each label (33 MiB in all).

    Resolution: logits closer than `(|logit| + 1) / 2^18` may share a bin and then count as tied; that is 4e-6 at 0 and
    1.5e-5 at -3. The AUC is within 1e-5 of the exact one while the logits' standard deviation is 50 such steps or more.
    Beyond a magnitude of 15, where a probability is 0 or 1 to six digits, logits within 0.4 % may share a bin.

    >>> auc = AUC()
    >>> auc.update(torch.tensor([-1.0, -2.0, -2.0, -3.0]), torch.tensor([1, 1, 0, 0]))
    >>> auc.compute().item()
    0.875
    """

    # The bits of positive floats, read as integers, are ordered as the floats are, and their leading bits are bins of
    # constant relative width. The bits of |logit| + 1 make bins that are evenly wide around 0: 2^18 for each doubling
    # from 1 to 16, where CTR models live, 2^8 from 16 to infinity.
    low, knee, high = 127 << 23, 131 << 23, 1 << 31  # the bits of 1 and of 16, and what all bits are below
    fine, coarse = 23 - 18, 23 - 8  # trailing bits to drop
    side = ((knee - low) >> fine) + ((high - knee) >> coarse)  # bins on each side of 0

    histogram: Tensor

    def __init__(self) -> None:
        super().__init__()
        _add_sum(self, "histogram", torch.int64, 2, 2 * self.side)  # label, bin

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch: see `ClickMetric.update`."""
        super().update(logits, clicks)
        bits = (logits.float().abs() + 1).view(torch.int32)
        distance = (bits.clamp(max=self.knee) - self.low) >> self.fine
        distance += (bits - self.knee).clamp(min=0) >> self.coarse
        bins = self.side + torch.where(logits < 0, -1 - distance, distance)
        index = torch.where(clicks > 0, 2 * self.side, 0) + bins
        self.histogram.view(-1).index_add_(0, index, torch.ones_like(index))

    def _value(self) -> Tensor:
        negative, positive = self.histogram.double()  # [bins] each, lowest logits first
        below = negative.cumsum(0) - negative / 2
        return (positive * below).sum() / (positive.sum() * negative.sum())

    def _why_undefined(self) -> str | None:
        return super()._why_undefined() or self._one_label()


class PageAUC(ClickMetric):
    """Page-grouped AUC: the exact AUC within each page that has both labels, averaged with the page's items as weight.

    This is the GAUC that DIN weights by impressions, with pages for groups. Pages of one label have no AUC and are left
    out. A page must lie whole within one `update` on one rank.
    """

    pages: Tensor
    weight: Tensor
    weighted_auc: Tensor

    def __init__(self) -> None:
        super().__init__()
        _add_sum(self, "pages", torch.int64)
        _add_sum(self, "weight", torch.int64)
        _add_sum(self, "weighted_auc", torch.float64)

    def update(self, logits: Tensor, clicks: Tensor, page_lengths: Tensor) -> None:  # type: ignore[override]
        """Adds a batch of whole pages.

        Args:
            logits: float [items], page-major.
            clicks: [items], any dtype, 0 or 1.
            page_lengths: int64 [pages], sums to `items`.

        Raises:
            ValueError: the shapes of logits and labels differ or are not [items].
        """
        super().update(logits, clicks)
        page = torch.repeat_interleave(page_lengths, output_size=logits.numel())
        order = logits.argsort()
        order = order[page[order].argsort(stable=True)]  # page by page, lowest logit first
        logits, page, clicked = logits[order], page[order], (clicks[order] > 0).double()

        # The rank of an item within its page; ties share the mean of their ranks.
        first = torch.ones_like(page, dtype=torch.bool)
        first[1:] = (logits[1:] != logits[:-1]) | (page[1:] != page[:-1])
        tie = first.cumsum(0) - 1  # [items], number of the run of equal logits
        start = page_lengths.cumsum(0) - page_lengths
        position = torch.arange(1, logits.numel() + 1, device=page.device) - start[page]
        zeros = clicked.new_zeros(logits.numel())
        in_tie, positions = zeros.index_add(0, tie, zeros + 1), zeros.index_add(0, tie, position.double())
        rank = (positions / in_tie)[tie]

        # Mann-Whitney: a clicked item of rank r beats r - 1 items, some of them clicked.
        zeros = clicked.new_zeros(page_lengths.numel())
        page_clicks = zeros.index_add(0, page, clicked)
        wins = zeros.index_add(0, page, clicked * rank) - page_clicks * (page_clicks + 1) / 2
        pairs = page_clicks * (page_lengths - page_clicks)
        weight = page_lengths * (pairs > 0)
        self.pages += page_lengths.numel()
        self.weight += weight.sum()
        self.weighted_auc += (weight * wins / pairs.clamp(min=1)).sum()

    def _value(self) -> Tensor:
        return self.weighted_auc / self.weight

    def _why_undefined(self) -> str | None:
        no_page = f"none of the {self.pages} pages has both labels" if self.weight == 0 else None
        return super()._why_undefined() or no_page


class LogLoss(ClickMetric):
    """Mean cross entropy of labels and logits, in nats for each impression (Eq. 11 of the CCN paper)."""

    loss: Tensor

    def __init__(self) -> None:
        super().__init__()
        _add_sum(self, "loss", torch.float64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch: see `ClickMetric.update`."""
        super().update(logits, clicks)
        self.loss += functional.binary_cross_entropy_with_logits(logits.double(), clicks.double(), reduction="sum")

    def _value(self) -> Tensor:
        return self.loss / self.items


class NormalizedEntropy(LogLoss):
    """Log loss over the entropy of the base rate: 1 is what predicting the mean click rate everywhere gives."""

    def _value(self) -> Tensor:
        rate = self.clicks.double() / self.items
        return super()._value() / -(torch.xlogy(rate, rate) + torch.xlogy(1 - rate, 1 - rate))

    def _why_undefined(self) -> str | None:
        return super()._why_undefined() or self._one_label()


class Calibration(ClickMetric):
    """Predicted over observed clicks: above 1 the model promises too much."""

    predicted: Tensor

    def __init__(self) -> None:
        super().__init__()
        _add_sum(self, "predicted", torch.float64)

    def update(self, logits: Tensor, clicks: Tensor) -> None:
        """Adds a batch: see `ClickMetric.update`."""
        super().update(logits, clicks)
        self.predicted += logits.double().sigmoid().sum()

    def _value(self) -> Tensor:
        return self.predicted / self.clicks

    def _why_undefined(self) -> str | None:
        return super()._why_undefined() or (self._one_label() if self.clicks == 0 else None)


class Volume(Metric):
    """How many pages and items were seen."""

    full_state_update = False

    pages: Tensor
    items: Tensor

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=_sum_over_ranks)
        _add_sum(self, "pages", torch.int64)
        _add_sum(self, "items", torch.int64)

    def update(self, logits: Tensor, page_lengths: Tensor) -> None:
        """Counts a batch: logits [items], page_lengths [pages]; a page without items is none."""
        self.pages += (page_lengths > 0).sum()
        self.items += logits.numel()

    def compute(self) -> dict[str, Tensor]:
        """int64 scalars `pages` and `items`."""
        return {"pages": self.pages, "items": self.items}


class CTRMetrics(MetricCollection):
    """The metrics that every run reports, updated once a batch.

    `compute` gives a dict of scalars: `auc`, `page_gauc`, `logloss`, `normalized_entropy`, `calibration` (float64, NaN
    where undefined), `pages`, `items` (int64). It is a collective call where torch.distributed is initialised.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                "auc": AUC(),
                "page_gauc": PageAUC(),
                "logloss": LogLoss(),
                "normalized_entropy": NormalizedEntropy(),
                "calibration": Calibration(),
                "volume": Volume(),
            },
            # Named, not found out from the first batch: equal sums of a first batch may differ in the second.
            compute_groups=[["auc"], ["page_gauc"], ["logloss", "normalized_entropy"], ["calibration"], ["volume"]],
        )

    def update(self, logits: Tensor, clicks: Tensor, page_lengths: Tensor) -> None:  # type: ignore[override]
        """Adds a batch of whole pages, which may be empty.

        Args:
            logits: float [items], page-major.
            clicks: [items], any dtype, 0 or 1.
            page_lengths: int64 [pages], sums to `items`.
        """
        super().update(logits=logits, clicks=clicks, page_lengths=page_lengths)

    @property
    def undefined(self) -> list[str]:
        """What of the last `compute` is NaN and why, e.g. "auc undefined: every one of the 123 labels is 0"."""
        metrics = self.items(keep_base=True, copy_state=False)
        reasons = {name: metric.undefined for name, metric in metrics if isinstance(metric, ClickMetric)}
        return [f"{name} undefined: {reason}" for name, reason in reasons.items() if reason is not None]


def _add_sum(metric: Metric, name: str, dtype: torch.dtype, *shape: int) -> None:
    metric.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")


def _sum_over_ranks(state: Tensor, group: Any = None) -> list[Tensor]:
    """The sum over ranks, in the form of torchmetrics' gather, which would hold every rank's histogram on each rank."""
    total = state.clone()
    distributed.all_reduce(total, group=group)
    return [total]

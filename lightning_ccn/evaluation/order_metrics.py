"""Metrics of p(order), which every run with an order head reports beside those of the clicks."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_ccn.evaluation.metrics import ORDER_METRICS, why_undefined


class OrderMetrics(MetricCollection):
    """`ORDER_METRICS`, updated once per batch; `compute` gives float64 scalars, NaN where undefined."""

    def __init__(self) -> None:
        metrics: dict[str, Metric | MetricCollection] = {name: metric() for name, metric in ORDER_METRICS.items()}
        super().__init__(metrics, compute_groups=False)

    def update(self, logits: Tensor, orders: Tensor) -> None:  # type: ignore[override]
        """Adds a batch, which may be empty.

        Args:
            logits: Float [items], of p(order).
            orders: Float [items], 0 or 1.
        """
        super().update(logits=logits, clicks=orders)

    @property
    def undefined(self) -> list[str]:
        """See `why_undefined`."""
        return why_undefined(self)

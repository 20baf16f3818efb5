"""The metrics of one split: of clicks, by segment if so wanted, and of the intent and orders that a model estimates."""

from __future__ import annotations

import torch
from torch import nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.evaluation.metrics import AUC, CTRMetrics
from lightning_ccn.evaluation.order_metrics import OrderMetrics
from lightning_ccn.evaluation.segments import SegmentMetrics
from lightning_ccn.models.system import Prediction
from lightning_ccn.nn.intent import intent_label


class SplitMetrics(nn.Module):
    """Sums over a split's batches and, in `finish`, over ranks.

    Args:
        category: Name of the item attribute that is the category; None: the intent has no label, and is not measured.

    Attributes:
        segments: Metrics by segment; None: not wanted.
    """

    def __init__(self, category: str | None) -> None:
        super().__init__()
        self.category = category
        self.clicks = CTRMetrics()
        self.segments: SegmentMetrics | None = None
        self.intent: AUC | None = None  # over pages; made when a system first estimates an intent
        self.orders: OrderMetrics | None = None  # made when a model first estimates orders, and a batch has them

    def update(self, prediction: Prediction, batch: PageBatch) -> None:
        """Adds a batch of whole pages with clicks; it may be empty.

        Every rank must add as many batches as the others, with the same kinds of prediction and label.
        """
        assert batch.clicks is not None
        self.clicks.update(prediction.logit, batch.clicks, batch.page_lengths)
        if self.segments is not None:
            self.segments.update(prediction.logit, batch)
        device = prediction.logit.device
        if prediction.intent is not None and self.category is not None:
            if self.intent is None:
                self.intent = AUC().to(device)
            pages = batch.pages if batch.items else 0  # an empty rank has a placeholder page
            self.intent.update(prediction.intent[:pages], intent_label(batch, self.category)[:pages])
        if (order_logit := prediction.order_logit) is not None and batch.orders is not None:
            if self.orders is None:
                self.orders = OrderMetrics().to(device)
            self.orders.update(order_logit, batch.orders)

    def finish(self, prefix: str) -> tuple[dict[str, float], list[str]]:
        """The metrics by name, and which are undefined and why; the next batch starts anew. A collective operation.

        Args:
            prefix: What the names begin with, such as `val_`.
        """
        values: dict[str, torch.Tensor] = dict(self.clicks.compute())
        undefined = self.clicks.undefined
        self.clicks.reset()
        if self.segments is not None:
            of_segments, without = self.segments.finish()
            values, undefined = values | of_segments, undefined + without
        if self.intent is not None:
            values["intent_auc"] = self.intent.compute()
            undefined += [f"intent_auc undefined: {why}" for why in [self.intent.undefined] if why]
            self.intent.reset()
        if self.orders is not None:
            values |= self.orders.compute()
            undefined += self.orders.undefined
            self.orders.reset()
        return {f"{prefix}{name}": value.item() for name, value in values.items()}, undefined

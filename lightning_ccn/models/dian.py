"""DIAN, the deep intention-aware network (Xia et al., 2023): two predictions, mixed by why the user entered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.intent import IntentNet, intent_loss
from lightning_ccn.nn.interest import InterestExtraction
from lightning_ccn.nn.tables import ItemKernel, PageEmbedding, TableDtype


class DIAN(System):
    """P(click) = p P(click | entered because of the trigger) + (1 - p) P(click | entered for the promotion).

    The intent net estimates p. The trigger-aware net predicts the first case and the trigger-free net the second. All
    three share the embeddings and are trained together; the intent net has a cross entropy of its own, see `nn.intent`.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        heads: Number of heads of each attention.
        hidden: Widths of the hidden layers of both nets' heads; the intent net has one layer, of the last width.
        intent_weight: Weight of the intent's cross entropy.
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        intent_weight: float = 1.0,
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel, table_dtype)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        per_item_dim = 3 * item_dim + self.embedding.number_dim
        self.intent = IntentNet(user_dim, item_dim, heads, hidden[-1])
        self.aware_target, self.aware_trigger = (InterestExtraction(item_dim, heads) for _ in range(2))
        self.aware_head = PageMLP(user_dim + 3 * item_dim, per_item_dim, hidden)
        self.free_target = InterestExtraction(item_dim, heads)
        self.free_head = PageMLP(user_dim, per_item_dim, hidden)
        self.category, self.intent_weight = dataset.schema.category, intent_weight
        warn_of_missing_inputs(
            self,
            dataset,
            trigger="every page gets the unknown item as its trigger, so the model is close to SIM",
            category="the intent has no label of its own, and the search returns behaviours of any category",
            short="its attention returns zeros",
            long="the search finds nothing, and its attention returns zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items], intent [pages]."""
        e = self.embedding(batch)
        page = batch.page
        intent = self.intent(e, batch)  # [pages]
        of_page = [e.user, e.trigger, self.aware_trigger.of_triggers(e.trigger, e.item, batch)]
        of_item = [e.target, self.aware_target.of_targets(e.target, e.item, batch), e.numbers]
        aware = self.aware_head(torch.cat(of_page, 1), torch.cat(of_item, 1), page)  # [items]
        of_item = [e.target, self.free_target.of_targets(e.target, e.item, batch), e.numbers]
        free = self.free_head(e.user, torch.cat(of_item, 1), page)  # [items]
        return Prediction(mix(intent[page], aware, free), intent=intent)

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """The intent's cross entropy, where the log has categories to make its label of."""
        if self.category is None:
            return {}
        assert prediction.intent is not None
        return {"intent": (intent_loss(prediction.intent, batch, self.category), self.intent_weight)}


def mix(intent: Tensor, aware: Tensor, free: Tensor) -> Tensor:
    """The logit of p sigmoid(aware) + (1 - p) sigmoid(free), p = sigmoid(intent), computed in logarithms throughout.

    All float [items].

    >>> mix(torch.tensor([-200.0, 0.0, 200.0]), torch.tensor([90.0] * 3), torch.tensor([-90.0] * 3))
    tensor([-90.,   0.,  90.])
    """
    p, not_p = logsigmoid(intent.float()), logsigmoid(-intent.float())
    click = torch.logaddexp(p + logsigmoid(aware.float()), not_p + logsigmoid(free.float()))
    no_click = torch.logaddexp(p + logsigmoid(-aware.float()), not_p + logsigmoid(-free.float()))
    return click - no_click

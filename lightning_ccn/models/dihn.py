"""DIHN, the deep interest highlight network (Shen et al., 2022): trigger and target, fused by the estimated intent."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.gather import gather
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.intent import IntentNet, intent_loss
from lightning_ccn.nn.interest import InterestExtraction
from lightning_ccn.nn.tables import Embedded, ItemKernel, PageEmbedding, TableDtype


class DIHN(System):
    """An intent net, a fused embedding of trigger and target, and interest extraction with it.

    The intent g is the probability that the user entered because of the trigger. It fuses trigger and target into one
    query, `g E_trigger + (1 - g) E_target`, for two sequences: the soft one (all short behaviours) and the hard one
    (the long behaviours of the trigger's category). The intent has a cross entropy of its own, see `nn.intent`.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        heads: Number of heads of each attention.
        hidden: Widths of the head's hidden layers; the intent net has one layer, of the last width.
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
        self.intent = IntentNet(user_dim, item_dim, heads, hidden[-1])
        self.hybrid_interest = InterestExtraction(item_dim, heads)
        self.head = PageMLP(user_dim + item_dim, 4 * item_dim + self.embedding.number_dim, hidden)
        self.category, self.intent_weight = dataset.schema.category, intent_weight
        warn_of_missing_inputs(
            self,
            dataset,
            trigger="every page gets the unknown item as its trigger, so the model is close to SIM",
            category="the intent has no label of its own, and the hard sequence has behaviours of any category",
            short="the attention to the soft sequence returns zeros",
            long="the attention to the hard sequence returns zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items], intent [pages]."""
        e = self.embedding(batch)
        page = batch.page
        intent = self.intent(e, batch)  # [pages]
        fused = self.fuse(intent, e, page)  # [items, item_dim]
        interest = self.hybrid_interest.by_trigger(fused, batch.of_page, e.item, batch)
        of_page = torch.cat([e.user, e.trigger], 1)
        of_item = torch.cat([e.target, fused, interest, e.numbers], 1)
        return Prediction(self.head(of_page, of_item, page), intent=intent)

    def fuse(self, intent: Tensor, e: Embedded, page: Tensor) -> Tensor:
        """The fused embedding: float [items, item_dim] from intent logits [pages]."""
        g = intent.sigmoid()[page, None]  # [items, 1]
        return g * gather(page, e.trigger) + (1 - g) * e.target

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """The intent's cross entropy, where the log has categories to make its label of."""
        if self.category is None:
            return {}
        assert prediction.intent is not None
        return {"intent": (intent_loss(prediction.intent, batch, self.category), self.intent_weight)}

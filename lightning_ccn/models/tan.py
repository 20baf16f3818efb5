"""TAN: the trigger-aware network, CCN's backbone (Figure 3 without the contrastive losses)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.attention import TargetAttention
from lightning_ccn.nn.collaborative import Bound, CollaborativeModule, HeadReads
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.tables import ItemKernel, PageEmbedding, TableDtype


class TAN(System):
    """Sigmoid(MLP(concat(E_user, E_target, E_trigger, H_tsi, s_target))), Eq. 3.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        heads: Number of attention heads.
        hidden: Widths of the head's hidden layers.
        collaborative: Whether there is a collaborative module and its s_target (CM in the paper's Table 2).
        trigger_interaction: Whether the trigger attends to the sequences too (TSI in the paper's Table 2).
        bound: Bound of the collaborative degree, see `nn.collaborative`.
        gain: Factor on the product of item and trigger in the collaborative module.
        head_reads: What the head reads of a bounded degree: the `degree` itself, or its `logit`, the value before the
            sigmoid, which does not saturate.
        direct_degree: Whether the degree, without its bound, is also added to the head's output. Through the head alone
            its gradient starts at almost nothing, and the seed decides when it starts to learn, see
            docs/reproduction.md.
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        collaborative: bool = True,
        trigger_interaction: bool = True,
        bound: Bound = "sigmoid",
        gain: float = 20.0,
        head_reads: HeadReads = "degree",
        direct_degree: bool = False,
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
    ) -> None:
        super().__init__()
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel, table_dtype)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        self.target_short = TargetAttention(item_dim, heads)
        self.target_long = TargetAttention(item_dim, heads)
        page_dim, per_item_dim = user_dim + item_dim, 3 * item_dim + self.embedding.number_dim
        self.trigger_interaction, self.has_degree = trigger_interaction, collaborative
        if trigger_interaction:
            self.trigger_short = TargetAttention(item_dim, heads)
            self.trigger_long = TargetAttention(item_dim, heads)
            page_dim += 2 * item_dim
        if not collaborative and (direct_degree or head_reads == "logit"):
            raise ValueError(
                "direct_degree and head_reads are for a system with a collaborative module; leave them out"
            )
        if head_reads == "logit" and bound == "none":
            raise ValueError("head_reads: logit is for a degree with a bound; leave it out, or set bound to sigmoid")
        self.head_reads, self.direct_degree = head_reads, direct_degree
        if collaborative:
            self.collaborative = CollaborativeModule(user_dim, item_dim, hidden[-1:], bound, gain)
            per_item_dim += 1
        self.head = PageMLP(page_dim, per_item_dim, hidden)
        warn_of_missing_inputs(
            self,
            dataset,
            trigger="every page gets the unknown item as its trigger, so the model is close to SIM",
            category="the search returns the most recent long behaviours of any category",
            short="its attention returns zeros",
            long="the search finds nothing, and its attention returns zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items], degree [items] or None."""
        e = self.embedding(batch)
        page = batch.page
        of_page = [e.user, e.trigger]  # [pages, .]
        of_item = [  # [items, .]
            e.target,
            self.target_short(e.target, batch.of_page, e.item, batch.short_of_page),
            self.target_long(e.target, batch.each_target, e.item, batch.long_of_target),
            e.numbers,
        ]
        if self.trigger_interaction:
            of_page += [
                self.trigger_short(e.trigger, batch.each_page, e.item, batch.short_of_page),
                self.trigger_long(e.trigger, batch.each_page, e.item, batch.long_of_trigger),
            ]
        degree = None
        if self.has_degree:
            degree, free = self.collaborative(e.user, e.target, e.trigger, page)
            of_item.append((free if self.head_reads == "logit" else degree)[:, None])
        logit = self.head(torch.cat(of_page, 1), torch.cat(of_item, 1), page)
        return Prediction(logit + free if self.direct_degree else logit, degree)

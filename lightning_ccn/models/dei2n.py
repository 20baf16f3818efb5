"""DEI2N (2024): how strong the instant interest is, when behaviours were, and how trigger and target interact."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.attention import TargetAttention
from lightning_ccn.nn.gather import gather
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.sequence_mean import sequence_mean
from lightning_ccn.nn.tables import Embedded, ItemKernel, PageEmbedding, TableDtype
from lightning_ccn.nn.time_gap import TimedItems

GAIN = 20.0  # on products of two embeddings, which start near 0.001


class DEI2N(System):
    """Sigmoid(MLP(concat(E_user, E_trigger, E_target, E_target * E_trigger, hard interest, mixed interest, numbers))).

    - The intensity g of the instant interest is what a gate makes of user, trigger and the long behaviours of the
      trigger's category. Nothing but the clicks teaches it.
    - The mixed interest is g MHTA(E_trigger, short) + (1 - g) MHTA(E_target, short).
    - The hard interest is the target's attention to the long behaviours of the trigger's category.
    - A behaviour is its item and its time before the page, see `nn.time_gap`.

    docs/reproduction.md says how the sources were read.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding, and of a time gap's.
        heads: Number of heads of each attention.
        hidden: Widths of the head's hidden layers.
        time: Whether the time of behaviours counts. Leave it out where a log's times are made up.
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        time: bool = True,
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
    ) -> None:
        super().__init__()
        self.reads_gaps = time
        self.embedding = PageEmbedding(dataset.schema, dim, item_kernel, table_dtype)
        user_dim, item_dim = self.embedding.user_dim, self.embedding.item_dim
        self.gate = nn.Sequential(nn.Linear(user_dim + 3 * item_dim + 1, dim), nn.ReLU(), nn.Linear(dim, 1))
        self.timed = TimedItems(item_dim, dim, time)
        self.target_short, self.trigger_short, self.target_hard = (TargetAttention(item_dim, heads) for _ in range(3))
        self.head = PageMLP(user_dim + item_dim, 4 * item_dim + self.embedding.number_dim, hidden)
        warn_of_missing_inputs(
            self,
            dataset,
            trigger="every page gets the unknown item as its trigger, so the gate cannot tell how strong the instant "
            "interest is",
            category="the hard sequence has the most recent long behaviours of any category",
            short="its attentions return zeros, and the gate decides nothing",
            long="the attention to the hard sequence returns zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items], intent [pages]: the logit of the intensity."""
        e = self.embedding(batch)
        page = batch.page
        hard, short = batch.long_of_trigger, batch.short_of_page
        intensity = self.intensity(e, batch)  # [pages]
        item, time = self.timed(e.item)
        of_target = self.target_short(e.target, batch.of_page, item, short, time)  # [items, item_dim]
        of_trigger = self.trigger_short(e.trigger, batch.each_page, item, short, time)  # [pages, item_dim]
        mixed = mixed_interest(intensity, of_trigger, of_target, page)
        interaction = GAIN * e.target * gather(page, e.trigger)
        of_hard = self.target_hard(e.target, batch.of_page, item, hard, time)
        of_item = torch.cat([e.target, interaction, of_hard, mixed, e.numbers], 1)
        return Prediction(self.head(torch.cat([e.user, e.trigger], 1), of_item, page), intent=intensity)

    def intensity(self, e: Embedded, batch: PageBatch) -> Tensor:
        """The logit of g: float [pages]."""
        hard = batch.long_of_trigger
        count = hard.seen.sum(1, keepdim=True)  # [pages, 1]
        summed = count * sequence_mean(e.item, hard)  # [pages, item_dim]
        seen = [e.user, summed, e.trigger, GAIN * e.trigger * summed, count.log1p()]
        logit: Tensor = self.gate(torch.cat(seen, 1)).squeeze(1)
        return logit


def mixed_interest(intensity: Tensor, of_trigger: Tensor, of_target: Tensor, page: Tensor) -> Tensor:
    """g of_trigger + (1 - g) of_target: float [items, dim].

    Args:
        intensity: float [pages], the logit of g.
        of_trigger: float [pages, dim].
        of_target: float [items, dim].
        page: int64 [items], the page of each item.
    """
    g = intensity.sigmoid()[:, None]
    return gather(page, g * of_trigger) + gather(page, 1 - g) * of_target

"""CRRN (2026): trigger and target interact by what they have in common, and two interests are mixed by the intent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.schema import Schema
from lightning_ccn.models.system import Prediction, System, warn_of_missing_inputs
from lightning_ccn.nn.cascade import Cascade
from lightning_ccn.nn.coaction import CoActionGate
from lightning_ccn.nn.gather import gather
from lightning_ccn.nn.head import PageMLP
from lightning_ccn.nn.intent import intent_loss
from lightning_ccn.nn.pairwise import category_tiers, pairwise_loss
from lightning_ccn.nn.sequence_mean import sequence_mean
from lightning_ccn.nn.tables import Embedded, ItemKernel, PageEmbedding, TableDtype


class CRRN(System):
    """Sigmoid(MLP(concat(E_user, E_trigger, f, E_target, V_short, V_long, interaction, numbers))).

    - The interaction is E_target * E_trigger, gated by the *co-action features*: which attributes target and trigger
      share, and their ratios.
    - f is a hidden vector of user, trigger and the sequences' means; the intent is a layer on top of it.
    - The interests V: a cascade of the target's and the trigger's attention gives two, see `nn.cascade`, which
      `fuse` mixes by the intent and the similarity of target and trigger. The sequences are the short one, and the long
      behaviours of the trigger's category.

    The intent has a cross entropy of its own, see `nn.intent`, and a pairwise loss ranks a page's items by tiers of
    click and category, see `nn.pairwise`. docs/reproduction.md says how the sources were read.

    Args:
        dataset: The data to train on or score; its schema sizes the tables.
        dim: Width of each feature's embedding.
        heads: Number of heads of each attention.
        hidden: Widths of the hidden layers of the head, and of the intent's network.
        intent_weight: Weight of the intent's cross entropy; data without categories or triggers have no label for it.
        tier_weight: Weight of the pairwise loss.
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        intent_weight: float = 0.5,
        tier_weight: float = 0.2,
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
    ) -> None:
        super().__init__()
        schema = with_co_actions(dataset.schema)
        self.embedding = PageEmbedding(schema, dim, item_kernel, table_dtype)
        user_dim, item_dim, number_dim = self.embedding.user_dim, self.embedding.item_dim, self.embedding.number_dim
        self.first_co_action = len(schema.numbers)  # the co-action features are the last of an item's numbers
        self.interaction = CoActionGate(number_dim - self.first_co_action, item_dim)
        widths = [user_dim + 3 * item_dim, *hidden]
        layers = [nn.Sequential(nn.Linear(*ends), nn.ReLU()) for ends in zip(widths, hidden, strict=False)]
        self.features, self.intent = nn.Sequential(*layers), nn.Linear(hidden[-1], 1)
        self.short, self.long = Cascade(item_dim, heads), Cascade(item_dim, heads)
        self.head = PageMLP(user_dim + item_dim + hidden[-1], 4 * item_dim + number_dim, hidden)
        self.category, self.tier_weight = schema.category, tier_weight
        no_label = schema.category is None or "trigger" in dataset.splits["train"].missing_inputs
        self.intent_weight = 0.0 if no_label else intent_weight
        warn_of_missing_inputs(
            self,
            dataset,
            trigger="every page gets the unknown item as its trigger, so no item has anything in common with it, and "
            "the intent has no label",
            category="the intent has no label, the pairs are of clicked and unclicked items alone, and the search "
            "returns behaviours of any category",
            short="the attention to the short sequence returns zeros",
            long="the search finds nothing, and the attention to it returns zeros",
        )

    def forward(self, batch: PageBatch) -> Prediction:
        """logit [items], intent [pages]."""
        e = self.embedding(batch)
        page, places = batch.page, batch.of_page
        short, long = batch.short_of_page, batch.long_of_trigger
        means = [sequence_mean(e.item, short), sequence_mean(e.item, long)]  # [pages, item_dim] each
        f = self.features(torch.cat([e.user, e.trigger, *means], 1))  # [pages, hidden[-1]]
        intent = self.intent(f).squeeze(1)  # [pages]
        of_target, of_trigger = (  # [items, 2 * item_dim] each
            torch.cat(interests, 1)
            for interests in zip(
                self.short(e.target, e.trigger, places, e.item, short),
                self.long(e.target, e.trigger, places, e.item, long),
                strict=True,
            )
        )
        interest = fuse(intent[page], similarity(e, page), of_target, of_trigger)
        interaction = self.interaction(e.numbers[:, self.first_co_action :], e.target, e.trigger, page)
        of_page = torch.cat([e.user, e.trigger, f], 1)
        of_item = torch.cat([e.target, interest, interaction, e.numbers], 1)
        return Prediction(self.head(of_page, of_item, page), intent=intent)

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """The intent's cross entropy, where there is a label for it, and the pairwise loss over tiers."""
        losses = {}
        if self.category is not None and self.intent_weight:
            assert prediction.intent is not None
            losses["intent"] = (intent_loss(prediction.intent, batch, self.category), self.intent_weight)
        if self.tier_weight:
            tiers = category_tiers(batch, self.category)
            losses["tiers"] = (pairwise_loss(prediction.logit, tiers, batch.of_page), self.tier_weight)
        return losses


def with_co_actions(schema: Schema) -> Schema:
    """The schema with every attribute of one value among those in which a target is compared with its trigger."""
    single = [feature.name for feature in schema.attributes if not feature.many]
    return replace(schema, same_as_trigger=tuple(dict.fromkeys([*schema.same_as_trigger, *single])))


def similarity(e: Embedded, page: Tensor) -> Tensor:
    """sigmoid(cos(E_target, E_trigger)): float [items]."""
    return cosine_similarity(e.target, gather(page, e.trigger), dim=1).sigmoid()


def fuse(intent: Tensor, alike: Tensor, of_target: Tensor, of_trigger: Tensor) -> Tensor:
    """p s V_trigger + (1 - p)(1 - s) V_target: what is wanted for the trigger's sake, and what anyway.

    Args:
        intent: float [items], the logit of p.
        alike: float [items], s, the similarity of target and trigger.
        of_target, of_trigger: float [items, dim], both interests.

    Returns:
        float [items, dim].
    """
    p, s = intent.sigmoid()[:, None], alike[:, None]
    return p * s * of_trigger + (1 - p) * (1 - s) * of_target

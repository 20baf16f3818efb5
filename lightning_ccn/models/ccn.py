"""CCN, the Collaborative Contrastive Network: TAN plus two contrastive losses over the items of a page (Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, warn_of_missing_inputs
from lightning_ccn.models.tan import TAN
from lightning_ccn.nn.collaborative import Bound, HeadReads
from lightning_ccn.nn.contrastive import (
    AttractionPairs,
    PageDegrees,
    attraction_label_weights,
    attraction_loss,
    attraction_weight,
    check_scale,
    repulsion_loss,
)
from lightning_ccn.nn.tables import ItemKernel, TableDtype


class CCN(TAN):
    """L = L_CE + lambda (L_repulsion + P_S-/P_S+ L_attraction), Eq. 12.

    Scoring is TAN's; the losses exist in training only. They teach the collaborative degree from the page's
    context: items with different labels repel each other, items with the same label attract each other.

    Args:
        dataset: The data to train on or score; its mean counts of clicked and unclicked items per page enter Eq. 9.
        dim: Width of each feature's embedding.
        heads: Number of attention heads.
        hidden: Widths of the head's hidden layers.
        trigger_interaction: Whether the trigger attends to the sequences too (TSI in the paper's Table 2).
        bound: Bound of the collaborative degree, see `nn.collaborative`.
        gain: Factor on the product of item and trigger in the collaborative module.
        head_reads: What the head reads of a bounded degree: `degree` or `logit`, see `models.tan.TAN`.
        direct_degree: Whether the degree, without its bound, is also added to the head's output, see `models.tan.TAN`.
        item_kernel: Lookup kernel of the tables, see `nn.tables.ItemTables`; `auto` chooses by device.
        table_dtype: Type of the tables' values in memory, see `nn.tables.PageEmbedding`.
        contrast_weight: Lambda of Eq. 12, the weight of both contrastive losses. The paper does not give it.
        temperature: Tau of the repulsion loss.
        scale: Xi of the attraction loss.
        orientation: How Eq. 5 treats unclicked targets, see `nn.contrastive`.
        detach_weights: Whether the importance weights are constants in the backward pass.
        repulsion: Whether the repulsion loss is used.
        attraction: Whether the attraction loss is used.
        attraction_pairs: Which items attract each other, and how Eq. 9 weights them, see `nn.contrastive`.
        attraction_ratio: P_S-/P_S+ of Eq. 12; computed from the training data if None.
    """

    auxiliary_start = 5.0  # so that the degree starts to learn, see docs/reproduction.md

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        trigger_interaction: bool = True,
        bound: Bound = "sigmoid",
        gain: float = 20.0,
        head_reads: HeadReads = "logit",
        direct_degree: bool = False,
        item_kernel: ItemKernel = "auto",
        table_dtype: TableDtype = "fp32",
        contrast_weight: float = 0.1,
        temperature: float = 0.5,
        scale: float = 0.8,
        orientation: Literal["label", "printed"] = "label",
        detach_weights: bool = False,
        repulsion: bool = True,
        attraction: bool = True,
        attraction_pairs: AttractionPairs = "by_label",
        attraction_ratio: float | None = None,
    ) -> None:
        super().__init__(
            dataset,
            dim=dim,
            heads=heads,
            hidden=hidden,
            trigger_interaction=trigger_interaction,
            bound=bound,
            gain=gain,
            head_reads=head_reads,
            direct_degree=direct_degree,
            item_kernel=item_kernel,
            table_dtype=table_dtype,
        )
        if not (repulsion or attraction):
            raise ValueError("repulsion and attraction are both off; leave one on, or train TAN with bound: sigmoid")
        if attraction:
            check_scale(bound, scale)
        self.contrast_weight, self.temperature, self.scale = contrast_weight, temperature, scale
        self.orientation, self.detach_weights = orientation, detach_weights
        self.repulsion, self.attraction = repulsion, attraction
        train = dataset.splits["train"]
        if repulsion and (missing := train.missing_inputs.get("two_labels")):
            raise ValueError(
                f"repulsion: the training split has {missing}, so CCN has nothing to contrast; put "
                "all items that a user saw after one trigger on one page, or train TAN (conf/model/tan.yaml)"
            )
        if attraction:
            left = "is 0" if attraction_pairs == "clicked" else "only pulls unclicked items together"
            warn_of_missing_inputs(self, dataset, two_clicks=f"the attraction loss {left}")
        # a folder that is only scored may have no training split
        if attraction and attraction_ratio is None and train.pages:
            attraction_ratio = attraction_weight(dataset.clicked_per_page, dataset.unclicked_per_page)
        self.attraction_ratio, self.label_weights = attraction_ratio, (1.0, 1.0)
        if attraction and train.pages:
            self.label_weights = attraction_label_weights(
                attraction_pairs, dataset.clicked_per_page, dataset.unclicked_per_page
            )

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """Repulsion and attraction over each page's exposed items, with their weights in Eq. 12."""
        assert prediction.degree is not None
        assert batch.clicks is not None
        pages = PageDegrees.of(prediction.degree, batch.clicks, batch.page, batch.pages)
        losses = {}
        if self.repulsion:
            value = repulsion_loss(
                pages,
                temperature=self.temperature,
                orientation=self.orientation,
                detach_weights=self.detach_weights,
            )
            losses["repulsion"] = (value, self.contrast_weight)
        if self.attraction:
            assert self.attraction_ratio is not None
            value = attraction_loss(
                pages,
                scale=self.scale,
                label_weights=self.label_weights,
                detach_weights=self.detach_weights,
            )
            losses["attraction"] = (value, self.contrast_weight * self.attraction_ratio)
        return losses

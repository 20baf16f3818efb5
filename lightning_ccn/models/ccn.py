"""CCN: TAN, taught by which items of a page were clicked together (Figure 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models.system import Prediction, warn_of_missing_inputs
from lightning_ccn.models.tan import TAN
from lightning_ccn.nn.collaborative import Bound
from lightning_ccn.nn.contrastive import attraction_loss, attraction_weight, check_scale, repulsion_loss
from lightning_ccn.nn.tables import ItemKernel


class CCN(TAN):
    """L = L_CE + lambda (L_repulsion + P_S-/P_S+ L_attraction), Eq. 12.

    Serving is TAN's: the losses exist in training alone.

    Args:
        dataset: the data that it will read; Eq. 9 takes its clicked and unclicked items a page from it.
        dim: of each feature's embedding.
        heads: of the target attention.
        hidden: widths of the head's hidden layers.
        trigger_interaction: have the trigger's own attention over the sequences (TSI in the paper's table).
        bound: of the collaborative degree.
        gain: of the product in the collaborative module.
        item_kernel: how items are looked up; `auto` chooses by device.
        contrast_weight: lambda.
        temperature: tau of the repulsion loss.
        scale: xi of the attraction loss.
        orientation: the reading of Eq. 5 for unclicked targets; see `nn.contrastive`.
        detach_weights: hold the importance weights constant in the backward pass.
        repulsion: have the repulsion loss.
        attraction: have the attraction loss.
        attraction_ratio: P_S-/P_S+ where it shall not come from the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        dim: int = 16,
        heads: int = 4,
        hidden: Sequence[int] = (128, 64),
        trigger_interaction: bool = True,
        bound: Bound = "sigmoid",
        gain: float = 20.0,
        item_kernel: ItemKernel = "auto",
        contrast_weight: float = 0.2,
        temperature: float = 0.5,
        scale: float = 0.8,
        orientation: Literal["label", "printed"] = "label",
        detach_weights: bool = False,
        repulsion: bool = True,
        attraction: bool = True,
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
            item_kernel=item_kernel,
        )
        if attraction:
            check_scale(bound, scale)
        self.contrast_weight, self.temperature, self.scale = contrast_weight, temperature, scale
        self.orientation, self.detach_weights = orientation, detach_weights
        self.repulsion, self.attraction = repulsion, attraction
        train = dataset.splits["train"]
        if repulsion and (missing := train.missing_inputs.get("two_labels")):
            raise ValueError(
                f"repulsion: the training split has {missing}, so CCN has nothing to contrast; put "
                "all items that a user saw under one trigger on one page, or train TAN (conf/model/tan.yaml)"
            )
        if attraction:
            warn_of_missing_inputs(self, dataset, two_clicks="the attraction loss pulls unclicked items together alone")
        if attraction and attraction_ratio is None and train.pages:  # a folder to be scored may have no training split
            attraction_ratio = attraction_weight(dataset.clicked_per_page, dataset.unclicked_per_page)
        self.attraction_ratio = attraction_ratio

    def auxiliary_losses(self, prediction: Prediction, batch: PageBatch) -> dict[str, tuple[Tensor, float]]:
        """The two contrastive losses over each page's exposed items, with their weights in Eq. 12."""
        degree, clicks, pages = prediction.degree, batch.clicks, batch.page_lengths
        assert degree is not None
        assert clicks is not None
        losses = {}
        if self.repulsion:
            value = repulsion_loss(
                degree,
                clicks,
                pages,
                temperature=self.temperature,
                orientation=self.orientation,
                detach_weights=self.detach_weights,
            )
            losses["repulsion"] = (value, self.contrast_weight)
        if self.attraction:
            assert self.attraction_ratio is not None
            value = attraction_loss(degree, clicks, pages, scale=self.scale, detach_weights=self.detach_weights)
            losses["attraction"] = (value, self.contrast_weight * self.attraction_ratio)
        return losses

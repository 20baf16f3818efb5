"""`page_effects.npz`: how far each page of the test split moves AUC, page AUC and the AUC of orders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.errors import OptionError
from lightning_ccn.evaluation.page_effects import auc_effects, page_auc_effects
from lightning_ccn.models.system import Prediction
from lightning_ccn.module import CTRModule

USER = "user"  # name of the profile feature that is the user's id, and of the file's array


class PageEffectsFile(L.Callback):
    """Writes the pages' effects on the metrics of the test split, float32 [pages] by metric, see `page_effects`.

    Where the data have users, their rows are in the file too: `user`, int64 [pages]. With an order head and a test
    split that has orders, there is `order_auc`.

    `ccn compare` adds it to its runs, and computes from the files how far a difference of two systems depends on which
    pages the test split happens to have.

    Args:
        file: The file to write.
    """

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hooks into the model's forward pass.

        Raises:
            OptionError: There are several ranks: no rank sees the logits of all pages.
        """
        if trainer.world_size > 1:
            raise OptionError(f"page effects are computed on one rank, and there are {trainer.world_size}")
        assert isinstance(pl_module, CTRModule) and pl_module.model is not None
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []
        self._orders: list[tuple[Tensor, Tensor]] = []
        self._users: list[Tensor] = []
        self._hook = pl_module.model.register_forward_hook(self._keep)

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: PageBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps the logits and labels of the batch that the model has just scored."""
        assert batch.clicks is not None
        prediction = self._prediction
        self._seen.append((prediction.logit.detach().float(), batch.clicks, batch.page_lengths))
        logit = prediction.order_logit  # the module has added the order head's part
        if logit is not None and batch.orders is not None:
            self._orders.append((logit.detach(), batch.orders))
        names = batch.user.keys()
        if USER in names:
            self._users.append(batch.user[USER].values())

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Writes the file."""
        self._hook.remove()
        logits, clicks, lengths = _joined(self._seen)
        shown = logits.astype(np.float64), clicks > 0, lengths[lengths > 0].astype(np.int64)
        auc, page_gauc = (effects(*shown).astype(np.float32) for effects in (auc_effects, page_auc_effects))
        arrays: dict[str, Any] = {"auc": auc, "page_gauc": page_gauc}
        if self._orders:
            logits, orders = _joined(self._orders)
            if orders.any():
                arrays["order_auc"] = auc_effects(logits.astype(np.float64), orders > 0, shown[2]).astype(np.float32)
        if self._users:
            arrays[USER] = torch.cat(self._users).cpu().numpy()[lengths > 0]
        np.savez(self.file, **arrays)

    def _keep(self, model: nn.Module, inputs: Any, prediction: Prediction) -> None:
        self._prediction = prediction


def _joined(batches: Sequence[tuple[Tensor, ...]]) -> list[np.ndarray]:
    """The tensors of all batches, one after another."""
    return [torch.cat(parts).cpu().numpy() for parts in zip(*batches, strict=True)]

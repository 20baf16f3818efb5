"""`CTRModule`: any of the systems as a LightningModule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import DataError, OptionError, TrainingError
from lightning_ccn.evaluation.item_means import ItemMeans
from lightning_ccn.evaluation.metrics import AUC, CTRMetrics
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.freezing import freeze
from lightning_ccn.nn.intent import intent_label
from lightning_ccn.nn.listwise import listwise_softmax_loss
from lightning_ccn.nn.tables import tables_on
from lightning_ccn.sharding import ShardingError, TorchRecStrategy


class CTRModule(L.LightningModule):
    """Trains a system on clicks, and scores targets with it.

    `training_step` is cross entropy plus the system's auxiliary losses over the page's context; `predict_step` asks
    the system for its scores and for nothing else. Tables are the strategy's: their optimizer and learning rate stand
    there, and follow this module's schedule.

    Args:
        dataset: what will be read; the command line fills it from `data`.
        system: makes the model for a dataset; what it makes is a `models.System`.
        lr: initial learning rate of the dense layers (AdaGrad).
        final_lr: learning rate at the end, as a share of the initial one; in between it falls linearly, for the
            tables alike.
        initial_accumulator: AdaGrad's accumulator at the start. Gradients of a mean over thousands of items are
            small: with 1e-3 or more the first epochs would not move (TensorFlow starts at 0.1, for other gradients).
        listwise_weight: of a softmax over each page's logits, see `nn.listwise`; for any system.
        freeze: tables and layers to hold as they are, see `nn.freezing`.
    """

    def __init__(
        self,
        dataset: Dataset,
        system: Callable[[Dataset], nn.Module],
        lr: float = 0.02,
        final_lr: float = 0.1,
        initial_accumulator: float = 1e-10,
        listwise_weight: float = 0.0,
        freeze: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.dataset, self.system = dataset, system
        self.lr, self.final_lr, self.initial_accumulator = lr, final_lr, initial_accumulator
        self.listwise_weight, self.freeze_names = listwise_weight, list(freeze)
        self.model: nn.Module | None = None  # a models.System
        self.train_means = ItemMeans()
        self.val_metrics, self.test_metrics = CTRMetrics(), CTRMetrics()
        self.intent_auc: AUC | None = None  # over pages; made when a system first estimates an intent
        self.results: dict[str, float] = {}  # of the last validation and test; what is logged is rounded to float32

    def configure_model(self) -> None:
        """Builds the system with its tables on `meta`: the strategy makes the shards."""
        if self.model is not None:
            return
        if not isinstance(self.trainer.strategy, TorchRecStrategy):
            raise ShardingError(
                f"trainer.strategy is {type(self.trainer.strategy).__name__}, which cannot shard embedding tables: "
                "leave it out, or name lightning_ccn.sharding.TorchRecStrategy"
            )
        self.model = self.new_system()
        try:
            freeze(self.model, self.freeze_names)
        except ValueError as error:
            raise OptionError(f"model.{error}") from error
        self.val_metrics.to(self.trainer.strategy.root_device)
        self.test_metrics.to(self.trainer.strategy.root_device)

    def new_system(self) -> nn.Module:
        """A `models.System` for the dataset, with its tables on `meta`; raises OptionError if it cannot be."""
        try:
            with tables_on("meta"):
                return self.system(self.dataset)
        except ValueError as error:
            raise OptionError(f"model.system.init_args: {error}") from error

    def forward(self, batch: PageBatch) -> Prediction:
        """ScoreCollector of every exposed item, logit [items]."""
        assert self.model is not None, "configure_model comes first"
        prediction: Prediction = self.model(batch)
        return prediction

    def training_step(self, batch: PageBatch, batch_idx: int) -> Tensor:
        """The loss whose average over ranks is the mean over the global batch's items."""
        prediction = self(batch)
        assert batch.clicks is not None
        ce = binary_cross_entropy_with_logits(prediction.logit.float(), batch.clicks, reduction="sum")
        terms = {"ce": ce / max(batch.items, 1)}
        loss = terms["ce"]
        system = cast(System, self.model)
        for name, (value, weight) in system.auxiliary_losses(prediction, batch).items():
            terms[name] = value
            loss = loss + weight * value
        if self.listwise_weight:
            terms["listwise"] = listwise_softmax_loss(prediction.logit, batch.clicks, batch.page_lengths)
            loss = loss + self.listwise_weight * terms["listwise"]
        terms["loss"] = loss
        if not math.isfinite(loss.item()):
            raise TrainingError(self._not_finite(terms, batch))
        self.train_means.add(terms, batch.items)
        if prediction.degree is not None:
            self.train_means.add_degrees(prediction.degree, batch.clicks)
        # ranks hold different numbers of items: each mean counts by its share
        everywhere = self._over_ranks(torch.tensor(float(batch.items), device=self.device))
        return loss * (batch.items * self.trainer.world_size / everywhere.clamp(min=1))

    def on_train_batch_end(self, outputs: Any, batch: PageBatch, batch_idx: int) -> None:
        """Logs the means since the last line, every `log_every_n_steps`."""
        every: int = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # the Trainer sets it from afar
        if self.trainer.global_step % every == 0:
            self.log_dict({f"train_{name}": value for name, value in self.train_means.window(self._over_ranks).items()})
            strategy = self.trainer.strategy
            assert isinstance(strategy, TorchRecStrategy)
            self.log_dict({"lr": self.trainer.optimizers[0].param_groups[0]["lr"], "table_lr": strategy.table_lr_now})

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's mean of every loss term and of the degrees."""
        self.log_dict(
            {f"train_{name}_epoch": value for name, value in self.train_means.epoch(self._over_ranks).items()}
        )
        self.train_means.reset()

    def validation_step(self, batch: PageBatch, batch_idx: int) -> None:
        """Adds a batch to the validation metrics."""
        self._score(self.val_metrics, batch)

    def on_validation_epoch_end(self) -> None:
        """Logs `val_auc` and the rest."""
        self._finish(self.val_metrics, "val_", "validation")

    def test_step(self, batch: PageBatch, batch_idx: int) -> None:
        """Adds a batch to the test metrics."""
        self._score(self.test_metrics, batch)

    def on_test_epoch_end(self) -> None:
        """Logs `auc` and the rest."""
        self._finish(self.test_metrics, "", "test")

    def predict_step(self, batch: PageBatch, batch_idx: int) -> dict[str, Tensor]:
        """Click probabilities of the targets: no label, no context.

        Returns:
            page_id int64 [items], item_id int64 [items], probability float [items].
        """
        logit = self(batch).logit
        return {
            "page_id": batch.page_id[batch.page],
            "item_id": batch.item["item"].values()[batch.target],
            "probability": logit.float().sigmoid(),
        }

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdaGrad over the dense layers, and the schedule that drives the tables' optimizer too."""
        optimizer = torch.optim.Adagrad(
            (p for p in self.parameters() if p.requires_grad),
            lr=self.lr,
            initial_accumulator_value=self.initial_accumulator,
        )
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: 1 - (1 - self.final_lr) * min(step / max(steps, 1), 1.0)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a later load is checked against, and the epoch's means so far."""
        checkpoint["ccn"] = {
            "system": type(self.model).__name__,
            "schema": self.dataset.schema.to_dict(),
            "digests": self.dataset.digests,
            "train_means": self.train_means.state(self._over_ranks),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another model or of other data, field by field.

        Raises:
            DataError: with every difference and the remedy.
        """
        saved = checkpoint.get("ccn")
        if saved is None:
            raise DataError("the checkpoint was not written by lightning_ccn: it names no system and no schema")
        differences = _differences(
            {"system": saved["system"], "schema": saved["schema"], "vocabulary": saved["digests"]},
            {
                "system": type(self.model).__name__,
                "schema": self.dataset.schema.to_dict(),
                "vocabulary": self.dataset.digests,
            },
        )
        if differences:
            raise DataError(
                "the checkpoint does not fit this run (checkpoint -> run): "
                + "; ".join(differences)
                + ". Resume with the model and data of the checkpoint, or fine-tune from it"
            )
        self.train_means.load(saved["train_means"], share=float(self.trainer.is_global_zero))

    def _score(self, metrics: CTRMetrics, batch: PageBatch) -> None:
        assert batch.clicks is not None
        prediction, category = self(batch), self.dataset.schema.category
        metrics.update(prediction.logit, batch.clicks, batch.page_lengths)
        if prediction.intent is not None and category is not None:  # without categories it has no label
            if self.intent_auc is None:
                self.intent_auc = AUC().to(self.device)
            pages = batch.page_lengths > 0  # not the page of nobody
            self.intent_auc.update(prediction.intent[pages], intent_label(batch, category)[pages])

    def _finish(self, metrics: CTRMetrics, prefix: str, split: str) -> None:
        values = {f"{prefix}{name}": value.item() for name, value in metrics.compute().items()}
        undefined = metrics.undefined
        metrics.reset()
        if self.intent_auc is not None:
            values[f"{prefix}intent_auc"] = self.intent_auc.compute().item()
            undefined += [f"intent_auc undefined: {why}" for why in [self.intent_auc.undefined] if why]
            self.intent_auc.reset()
        self.results.update(values)
        self.log_dict({name: float(value) for name, value in values.items()})
        for words in undefined:
            rank_zero_warn(f"{split} split: {words}")

    def _not_finite(self, terms: Mapping[str, Tensor], batch: PageBatch) -> str:
        bad = ", ".join(f"{name} = {value.item()}" for name, value in terms.items() if not math.isfinite(value.item()))
        pages = ", ".join(str(page) for page in batch.page_id[:5].tolist())
        return (
            f"the loss is not finite at step {self.trainer.global_step} (epoch {self.trainer.current_epoch}, "
            f"rank {self.trainer.global_rank}): {bad}. The batch has {batch.pages} pages, page_id {pages}, ... "
            "The step was not taken. Lower model.lr and trainer.strategy.table_lr, or look at these pages"
        )

    def _over_ranks(self, value: Tensor) -> Tensor:
        summed: Tensor = self.trainer.strategy.reduce(value, reduce_op="sum")
        return summed


def _differences(saved: Any, here: Any, path: str = "") -> list[str]:
    """Where two nested plain values differ, as `path: saved -> here`."""
    if isinstance(saved, dict) and isinstance(here, dict):
        names = [*saved, *(name for name in here if name not in saved)]
        return [
            line
            for name in names
            for line in _differences(saved.get(name), here.get(name), f"{path}.{name}" if path else str(name))
        ]
    return [] if saved == here else [f"{path}: {saved} -> {here}"]

"""`CTRModule`: how any system is trained, validated, tested and asked for scores. Read this file first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.identity import check_same_data, data_identity, saved_numbers, trained_on
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.evaluation.finite_loss import FiniteLoss
from lightning_ccn.evaluation.item_means import DEGREES, ItemMeans
from lightning_ccn.evaluation.segments import SegmentMetrics, item_impressions, pages_for_trigger
from lightning_ccn.evaluation.split_metrics import SplitMetrics
from lightning_ccn.lightning_private import epoch_was_left, log_interval
from lightning_ccn.losses import LossWeights, PositionBias, auxiliary_factor, batch_losses
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.compiler import missing_for_compile
from lightning_ccn.nn.dense_adagrad import DenseAdagrad
from lightning_ccn.nn.freed_memory import keep_freed_memory
from lightning_ccn.nn.freezing import freeze
from lightning_ccn.nn.head_size import slow_heads
from lightning_ccn.nn.order_head import OrderHead
from lightning_ccn.nn.tables import tables_on
from lightning_ccn.sharding import ShardingError, TorchRecStrategy

# What the defaults of `optimizer` and `lr_scheduler` use, and nothing else does.
FINAL_LR, INITIAL_ACCUMULATOR = 0.1, 1e-10
READING = ("short_length", "long_length")  # what `PageData` has to do with a model: how much it saw of a sequence


class CTRModule(L.LightningModule):
    """Trains a system on clicks, and scores targets with it.

    The training loss is the cross entropy of the clicks plus the system's auxiliary losses over each page's context.
    Scoring needs the target alone. The embedding tables belong to the strategy: it has their optimizer and learning
    rate, and scales that rate by this module's schedule.

    Args:
        dataset: The data that the module will read. The command line fills it in from `data`.
        system: Makes the `models.System` for a dataset.
        lr: Initial learning rate of the dense layers.
        optimizer: Makes the dense layers' optimizer from (parameters, lr): any class of `torch.optim`, or your own.
            AdaGrad if None.
        lr_scheduler: Makes the schedule from the optimizer; it advances with every step, and the tables' learning rate
            follows it. If None, the rate falls linearly to `final_lr` over the run's steps.
        final_lr: Learning rate at the end of the default schedule, as a share of the initial one.
        initial_accumulator: Initial accumulator of the default AdaGrad. The gradient of a mean over thousands of items
            is small: with 1e-3 or more, the first epochs barely move (TensorFlow starts at 0.1, but for sums).
        listwise_weight: Weight of a softmax loss over each page's logits, see `nn.listwise`; works with any system.
        pairwise_weight: Weight of a loss over each page's pairs of a clicked and an unclicked item, see `nn.pairwise`;
            works with any system.
        order_weight: Weight of the orders' loss. Above 0, an order head beside the click head estimates p(order), see
            `nn.order_head`, and the data need orders; works with any system.
        auxiliary_start: Factor on the system's auxiliary losses, such as CCN's contrast, in the first step. It falls
            linearly to 1 over the first quarter of the steps. A large one helps CCN's collaborative degree to start
            where clicks or pages are few, see docs/reproduction.md. If None, it is the system's (5 for CCN, else 1);
            in a run without an end, 1.
        cold_below: If set, a test reports by segment too, see `evaluation.segments`; items are cold that the training
            split of the tested folder shows less often than this.
        freeze: Names of tables and layers that are not trained, see `nn.freezing`.
        compile_layers: Whether torch.compile makes fewer, larger kernels of what follows the lookups in a training
            step. The first step then takes a minute.

    Raises:
        OptionError: An option is out of range, or the given `optimizer` or `lr_scheduler` would ignore it.
    """

    def __init__(
        self,
        dataset: Dataset,
        system: Callable[[Dataset], System],
        lr: float = 0.02,
        optimizer: Callable[[Iterable[Tensor], float], Optimizer] | None = None,
        lr_scheduler: Callable[[Optimizer], LRScheduler] | None = None,
        final_lr: float = FINAL_LR,
        initial_accumulator: float = INITIAL_ACCUMULATOR,
        listwise_weight: float = 0.0,
        pairwise_weight: float = 0.0,
        order_weight: float = 0.0,
        auxiliary_start: float | None = None,
        cold_below: int | None = None,
        freeze: Sequence[str] = (),
        compile_layers: bool = False,
    ) -> None:
        super().__init__()
        for name, value in (
            ("lr", lr),
            ("final_lr", final_lr),
            ("initial_accumulator", initial_accumulator),
            ("listwise_weight", listwise_weight),
            ("pairwise_weight", pairwise_weight),
            ("order_weight", order_weight),
            ("auxiliary_start", 1.0 if auxiliary_start is None else auxiliary_start),
        ):
            if not 0 <= value < math.inf:
                raise OptionError(f"model.{name} is {value}: it must be a number from 0 on")
        if optimizer is not None and initial_accumulator != INITIAL_ACCUMULATOR:
            raise OptionError("model.initial_accumulator: only the default optimizer uses it; leave it out")
        if lr_scheduler is not None and final_lr != FINAL_LR:
            raise OptionError("model.final_lr: only the default schedule uses it; leave it out")
        self.dataset, self.system = dataset, system
        self.lr, self.optimizer, self.lr_scheduler = lr, optimizer, lr_scheduler
        self.final_lr, self.initial_accumulator = final_lr, initial_accumulator
        self.loss_weights = LossWeights(listwise_weight, pairwise_weight, order_weight)
        self._given_start = auxiliary_start
        self.auxiliary_start, self._steps = 1.0, 1.0  # those of the run; known when it starts
        self.freeze_names, self.compile_layers, self.cold_below = list(freeze), compile_layers, cold_below
        self.model: System | None = None
        self.order_head: OrderHead | None = None
        positions = dataset.schema.position_bias
        self.position_bias = None if positions is None else PositionBias(positions)
        self._forward: Callable[[PageBatch], Prediction] = self.forward  # in training; compiled if so wanted
        self._losses = batch_losses
        self.train_means, self.finite_loss = ItemMeans(), FiniteLoss()
        self.val_metrics, self.test_metrics = (SplitMetrics(dataset.schema.category) for _ in range(2))
        self.results: dict[str, float] = {}  # of the last validation and test; logged values are rounded to float32

    def configure_model(self) -> None:
        """Builds the system with its tables on the meta device; the strategy then makes the shards."""
        if self.model is not None:
            return
        if not isinstance(self.trainer.strategy, TorchRecStrategy):
            raise ShardingError(
                f"trainer.strategy is {type(self.trainer.strategy).__name__}, which cannot shard embedding tables: "
                "leave it out, or name lightning_ccn.sharding.TorchRecStrategy"
            )
        self.model = self.new_system(self.trainer.strategy.root_device.type)
        self.order_head = self.new_order_head(self.model)
        try:
            freeze(self.model, self.freeze_names, self.order_head)
        except ValueError as error:
            raise OptionError(f"model.{error}") from error
        on_gpu = self.trainer.strategy.root_device.type == "cuda"
        if not on_gpu:
            keep_freed_memory()
        if on_gpu and self.trainer.precision == "bf16-mixed" and (words := slow_heads(self.model)):
            rank_zero_warn(f"model.system.init_args.heads: {words}")
        if self.compile_layers:
            if words := missing_for_compile(self.trainer.strategy.root_device.type):
                raise OptionError(
                    f"model.compile_layers: this machine lacks {words}; install it, or leave the option out"
                )
            # sizes differ from batch to batch; scoring is not compiled, which would take another minute
            whole = self.model.forward if self.order_head is None else self.forward
            self._forward = torch.compile(whole, dynamic=True)
            self._losses = torch.compile(batch_losses, dynamic=True)
        self.val_metrics.to(self.trainer.strategy.root_device)
        self.test_metrics.to(self.trainer.strategy.root_device)

    @property
    def reads_long(self) -> bool:
        """Whether the system reads the long behaviours; `PageData` asks."""
        assert self.model is not None, "configure_model comes first"
        return self.model.reads_long

    @property
    def reads_gaps(self) -> bool:
        """Whether the system reads how long ago behaviours were; `PageData` asks."""
        assert self.model is not None, "configure_model comes first"
        return self.model.reads_gaps

    @property
    def reads_orders(self) -> bool:
        """Whether there is an order head; `PageData` asks."""
        return self.loss_weights.order > 0

    def new_system(self, device_type: str = "cpu") -> System:
        """The system for the dataset, with its layers on the CPU and its tables on the meta device.

        The layers are made on the CPU for every device, so that a seed gives the same initial weights everywhere:
        Lightning's default device within `configure_model` would draw them with that device's generator.

        Args:
            device_type: Type of the device that will run the system; decides the lookup kernel of the item tables.

        Raises:
            OptionError: An option of the system cannot work with this data, or the class is no `models.System`.
        """
        try:
            with torch.device("cpu"), tables_on("meta", for_device=device_type):
                system = self.system(self.dataset)
        except ValueError as error:
            raise OptionError(f"model.system.init_args: {error}") from error
        if not isinstance(system, System):
            raise OptionError(f"model.system: {type(system).__name__} is not a subclass of lightning_ccn.System")
        return system

    def new_order_head(self, system: System) -> OrderHead | None:
        """The order head of a system, on the CPU as its layers; None without `order_weight`.

        Raises:
            OptionError: The system has no head of its own to copy.
        """
        if not self.reads_orders:
            return None
        try:
            with torch.device("cpu"):
                return OrderHead(system)
        except ValueError as error:
            raise OptionError(f"model.{error}") from error

    def forward(self, batch: PageBatch) -> Prediction:
        """Scores every exposed item: logit [items], and conversion [items] with an order head."""
        assert self.model is not None, "configure_model comes first"
        prediction: Prediction = self.model(batch)
        if self.order_head is not None:
            prediction.conversion = self.order_head.conversion()
        return prediction

    def training_step(self, batch: PageBatch, batch_idx: int) -> Tensor:
        """The rank's loss, scaled so that its average over ranks is the mean over the global batch's items."""
        prediction = self._forward(batch)
        assert self.model is not None
        auxiliary = auxiliary_factor(self.auxiliary_start, self.trainer.global_step, self._steps)
        # as a number, it would be compiled anew in each step
        factor = torch.full((), auxiliary, device=self.device) if self.compile_layers else auxiliary
        losses = self._losses(self.model, self.position_bias, self.loss_weights, prediction, batch, factor)
        names, loss = tuple(losses.terms), losses.terms["loss"]
        self.finite_loss.check()  # the step before
        where = f"step {self.trainer.global_step} (epoch {self.trainer.current_epoch}, rank {self.trainer.global_rank})"
        self.finite_loss.watch(names, losses.values, batch.page_id, where)
        self.train_means.add(names, losses.values, batch.items)
        if losses.degrees is not None:
            self.train_means.add_sums(DEGREES, losses.degrees)
        ranks = self.trainer.world_size
        if ranks == 1:
            return loss
        # DDP averages over ranks with equal weights, but ranks have different numbers of items
        global_items = self._sum_over_ranks(loss.new_full((), batch.items))
        return loss * (batch.items * ranks / global_items.clamp(min=1))

    def on_train_batch_end(self, outputs: Any, batch: PageBatch, batch_idx: int) -> None:
        """Logs the means since the last logged step, every `log_every_n_steps`; 0 logs none."""
        every = log_interval(self.trainer)
        if every and self.trainer.global_step % every == 0:
            self.log_dict(
                {f"train_{name}": value for name, value in self.train_means.window(self._sum_over_ranks).items()}
            )
            strategy = self.trainer.strategy
            assert isinstance(strategy, TorchRecStrategy)
            self.log_dict({"lr": self.trainer.optimizers[0].param_groups[0]["lr"], "table_lr": strategy.table_lr_now})

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's mean of every loss term and of the collaborative degrees."""
        self.finite_loss.check()
        self.log_dict(
            {f"train_{name}_epoch": value for name, value in self.train_means.epoch(self._sum_over_ranks).items()}
        )
        if not epoch_was_left(self.trainer):  # else a run that continues adds the rest of the epoch
            self.train_means.reset()

    def on_validation_start(self) -> None:
        """Checks the last training step before its weights are scored."""
        self.finite_loss.check()

    def validation_step(self, batch: PageBatch, batch_idx: int) -> None:
        """Adds a batch to the validation metrics."""
        self.val_metrics.update(self(batch), batch)

    def on_validation_epoch_end(self) -> None:
        """Logs `val_auc` and the rest."""
        self._finish(self.val_metrics, "val_", "validation")

    def on_test_start(self) -> None:
        """Counts the impressions of the training split, if a test is to report by segment."""
        if self.cold_below is not None:
            mine = item_impressions(self.dataset, self.trainer.global_rank, self.trainer.world_size)
            cold = self._sum_over_ranks(mine.to(self.device)) < self.cold_below
            cold[0] = True  # the unknown item stands for all items without a row
            for_trigger = pages_for_trigger(self.dataset)
            for_trigger = None if for_trigger is None else for_trigger.to(self.device)
            self.test_metrics.segments = SegmentMetrics(cold, self.dataset.schema.category, for_trigger).to(self.device)

    def test_step(self, batch: PageBatch, batch_idx: int) -> None:
        """Adds a batch to the test metrics."""
        self.test_metrics.update(self(batch), batch)

    def on_test_epoch_end(self) -> None:
        """Logs `auc` and the rest."""
        self._finish(self.test_metrics, "", "test")

    def predict_step(self, batch: PageBatch, batch_idx: int) -> dict[str, Tensor]:
        """Click probabilities of the targets, without clicks or context.

        Returns:
            page_id int64 [items], item_id int64 [items] (rows of the item table), probability float [items]; with an
            order head order_probability float [items].
        """
        prediction = self(batch)
        found = {
            "page_id": batch.page_id[batch.page],
            "item_id": batch.item["item"].values()[batch.target],
            "probability": prediction.logit.float().sigmoid(),
        }
        if (order_logit := prediction.order_logit) is not None:
            found["order_probability"] = order_logit.sigmoid()
        return found

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The dense layers' optimizer, and the schedule that the tables' learning rate follows too."""
        self._steps = max(self.trainer.estimated_stepping_batches, 1)
        self.auxiliary_start = self._start_of_auxiliary_losses()
        dense = [parameter for parameter in self.parameters() if parameter.requires_grad]
        if self.optimizer is not None:
            optimizer = self.optimizer(dense, self.lr)
        else:
            optimizer = DenseAdagrad(dense, self.lr, self.initial_accumulator)
        schedule = self.lr_scheduler(optimizer) if self.lr_scheduler is not None else self._linear_fall(optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _start_of_auxiliary_losses(self) -> float:
        assert self.model is not None, "configure_model comes first"
        start, endless = self._given_start, self._steps == math.inf
        if start is None:
            return self.model.default_start(endless)
        if endless and start != 1:
            raise OptionError(
                f"model.auxiliary_start is {start}: it falls over the first quarter of a run, and this one has no end; "
                "set trainer.max_epochs or trainer.max_steps, or leave it out"
            )
        return start

    def _linear_fall(self, optimizer: Optimizer) -> LRScheduler:
        return LambdaLR(optimizer, lambda step: 1 - (1 - self.final_lr) * min(step / self._steps, 1.0))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what turns a log into scores, for `on_load_checkpoint` to compare, and the epoch's means so far."""
        self.finite_loss.check()
        assert self.model is not None
        kind, data = type(self.model), getattr(self.trainer, "datamodule", None)
        checkpoint["ccn"] = {
            "system": kind.__name__,
            "class": f"{kind.__module__}.{kind.__qualname__}",
            "options": self.model.options,
            "order_head": self.order_head is not None,
            "reading": {name: getattr(data, name) for name in READING} if isinstance(data, PageData) else {},
            **data_identity(self.dataset),
            "train_means": self.train_means.state(self._sum_over_ranks),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Rejects a checkpoint of another model or of other data, and takes over the moments of its numbers.

        Raises:
            DataError: Lists every field that differs, and the remedy.
        """
        saved = checkpoint.get("ccn")
        if saved is None:
            raise DataError("the checkpoint was not written by lightning_ccn: it names no system and no schema")
        if saved.get("order_head", False) != (self.order_head is not None):  # older checkpoints do not say
            has, set_it = ("has an", "above 0") if self.order_head is None else ("has no", "to 0")
            raise DataError(f"the checkpoint {has} order head: set model.order_weight {set_it}, as in its run")
        resuming = self.trainer.state.fn == TrainerFn.FITTING
        check_same_data(saved, self.dataset, resuming, system=type(self.model).__name__)
        if self.cold_below is not None and self.trainer.testing and not trained_on(saved, self.dataset):
            rank_zero_warn(
                f"{self.dataset.folder} is not the data that the checkpoint was trained on: model.cold_below counts "
                "impressions in its training split, so an item may be called cold that this model has learned"
            )
        self.dataset.numbers.update(saved_numbers(saved, self.dataset))
        self.train_means.load(saved["train_means"], share=float(self.trainer.is_global_zero))

    def _finish(self, metrics: SplitMetrics, prefix: str, split: str) -> None:
        values, undefined = metrics.finish(prefix)
        self.results.update(values)
        self.log_dict({name: float(value) for name, value in values.items()})
        for words in undefined:
            rank_zero_warn(f"{split} split: {words}")

    def _sum_over_ranks(self, value: Tensor) -> Tensor:
        """Sums a tensor of this rank's device in place; Lightning's `reduce` would add a barrier."""
        if self.trainer.world_size > 1:
            dist.all_reduce(value)
        return value

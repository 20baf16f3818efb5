"""`PageData`: a dataset folder as a LightningDataModule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import lightning as L
import numpy as np
from lightning.pytorch.utilities import rank_zero_warn

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.orders import has_orders, refuse_without_orders
from lightning_ccn.data.page_row import PURCHASES
from lightning_ccn.data.reader import PageBatches, PageLoader
from lightning_ccn.data.stream import PageOrder
from lightning_ccn.errors import OptionError


class PageData(L.LightningDataModule):
    """Page views of a dataset folder, for every stage.

    A page view is a page that one user saw once, with the items exposed on it.

    Args:
        folder: Dataset folder, as `ccn data world` or `ccn data convert` writes it; a path, or an address in a store,
            such as s3://bucket/folder.
        batch_pages: Number of page views in a global batch, over all ranks. The order of the global batches, and so
            what a model learns, does not depend on the number of ranks.
        short_length: How many of the most recent behaviours of the short sequence are kept.
        long_length: How many of the most recent behaviours of the long sequence are kept for each category on the page.
        lanes: Upper bound of the number of ranks; the largest divisor of batch_pages up to this is used.
        seed: Seed of the order of the training pages.
        workers: Number of processes per rank that make batches ahead: 0 reads in the training process; one reads and
            collates; of several, one collates what the others read.
        evaluation_factor: A global batch of validation and test has so many times `batch_pages` page views. Without
            gradients they need less memory, and small batches are scored faster together. No metric depends on it.
        predict_split: Split that `ccn predict` scores.
        same_ids: Vouch that the rows of tables without a file in vocabulary/ mean the same ids as in the checkpoint.
            Nothing else can show it for a folder that the checkpoint was not trained on.
        cache: A folder on a disk of each node, where row groups of a store are kept after they were read once. Without
            it, they are read from the store in every epoch.

    Raises:
        DataError: The folder is missing or malformed.
        OptionError: A number is out of range, or the folder is cut to fewer long behaviours than `long_length`.
    """

    def __init__(
        self,
        folder: str | Path,
        batch_pages: int = 128,
        short_length: int = 20,
        long_length: int = 20,
        lanes: int = 64,
        seed: int = 0,
        workers: int = 1,
        evaluation_factor: int = 1,
        predict_split: Literal["train", "validation", "test"] = "test",
        same_ids: bool = False,
        cache: Path | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_pages", batch_pages, 1),
            ("short_length", short_length, 1),
            ("long_length", long_length, 1),
            ("lanes", lanes, 1),
            ("seed", seed, 0),
            ("workers", workers, 0),
            ("evaluation_factor", evaluation_factor, 1),
        ):
            if value < least:
                raise OptionError(f"data.{name} is {value}: it must be {least} or more")
        self.dataset = Dataset.open(folder, cache)
        self.dataset.schema.refuse_longer_search(long_length, self.dataset.folder)
        self.dataset.same_ids = same_ids
        self.batch_pages, self.lanes, self.seed, self.workers = batch_pages, lanes, seed, workers
        self.short_length, self.long_length = short_length, long_length
        self.predict_split, self.evaluation_factor = predict_split, evaluation_factor
        self._training: PageLoader | None = None

    def train_dataloader(self) -> PageLoader:
        """Training pages, shuffled differently in each epoch; with `overfit_batches`, the same pages in each."""
        overfits = self.trainer is not None and self.trainer.overfit_batches > 0  # type: ignore[attr-defined]
        self._training = self._loader("train", seed=None if overfits else self.seed)
        return self._training

    def state_dict(self) -> dict[str, Any]:
        """The position in the stream of training batches; the same for every world size."""
        return self._training.state_dict() if self._training else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues at a saved position."""
        # Lightning restores loaders too, but only those made later. A learning rate schedule asks the Trainer for its
        # number of steps, which makes the loaders earlier.
        if self._training is not None and state_dict:
            self._training.load_state_dict(state_dict)

    def val_dataloader(self) -> PageLoader:
        """Validation pages in the order of the files."""
        return self._loader("validation", factor=self.evaluation_factor)

    def test_dataloader(self) -> PageLoader:
        """Test pages in the order of the files."""
        return self._loader("test", factor=self.evaluation_factor)

    def predict_dataloader(self) -> PageLoader:
        """Pages to score, without their clicks."""
        return self._loader(self.predict_split, with_clicks=False)

    def check_ranks(self, world_size: int) -> None:
        """Checks that this many ranks can share a global batch.

        Raises:
            DataError: They cannot.
        """
        PageOrder(np.zeros(0), self.batch_pages, self.lanes, self.seed).lanes_of(0, world_size)

    def _loader(self, split: str, seed: int | None = None, with_clicks: bool = True, factor: int = 1) -> PageLoader:
        module = self.trainer.lightning_module if self.trainer else None
        reads_long = getattr(module, "reads_long", True)  # what `CTRModule` says; `data/` knows no module
        reads_gaps = getattr(module, "reads_gaps", False)
        with_orders = with_clicks and getattr(module, "reads_orders", False)
        if with_orders and self.trainer is not None and self.trainer.state.fn == "fit":
            refuse_without_orders(self.dataset, split)
        elif with_orders and not has_orders(self.dataset, split):
            rank_zero_warn(f"{self.dataset.folder / split}: has no column {PURCHASES}, so orders are not measured")
            with_orders = False
        batches = PageBatches(
            self.dataset,
            split,
            batch_pages=self.batch_pages * factor,
            short_length=self.short_length,
            long_length=self.long_length if reads_long else 0,
            lanes=self.lanes,
            seed=seed,
            with_clicks=with_clicks,
            with_gaps=reads_gaps,
            with_orders=with_orders,
            rank=self.trainer.global_rank if self.trainer else 0,
            world_size=self.trainer.world_size if self.trainer else 1,
        )
        strategy: Any = self.trainer.strategy if self.trainer else None
        device = strategy.root_device if strategy else None
        gpu = device if device is not None and device.type == "cuda" else None
        # what a strategy that exchanges ids ahead offers, see `sharding.exchange_ahead`; `data/` knows no strategy
        ahead = split == "train" and getattr(strategy, "exchanges_ahead", False)
        return PageLoader(batches, self.workers, gpu, announce=strategy.begin_exchange if ahead else None)

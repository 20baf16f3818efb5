"""The Parquet folder that `ccn predict` writes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow as pa
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_ccn.callbacks.prediction_parts import (
    BATCHES,
    PredictionParts,
    are_finished,
    metadata_of,
    whole_parts,
)
from lightning_ccn.data import page_row
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.new_folder import PLAN, NewFolder, is_of, naming, part_of, refuse_filled
from lightning_ccn.data.new_store_folder import WHOLE, NewStoreFolder, refuse_filled_store
from lightning_ccn.data.places import Place
from lightning_ccn.data.raw_ids import USER, RawIds
from lightning_ccn.data.reader import PageLoader
from lightning_ccn.data.store_path import StorePath
from lightning_ccn.errors import DataError
from lightning_ccn.sharding.manifest import MANIFEST

OTHERWISE = "remove it, or name another with --output"
FINISHED = f"{OTHERWISE}; a prediction has finished there, and if it was this one, nothing is left to do"
OF_JOB, OF_PLAN = b"ccn.job", b"ccn.plan"  # metadata of each part
PAGE_ID, USER_ID, ITEM_ID, PROBABILITY = "page_id", "user_id", "item_id", "probability"
ORDER_PROBABILITY = "order_probability"


class PredictionWriter(BasePredictionWriter):
    """Writes the click probability of every exposed item, a Parquet part per rank and `BATCHES` batches.

    Columns are page_id, item_id (the item's row in the item table) and probability, and order_probability of a model
    with an order head. With raw ids, item_id is the log's
    own id, null for the unknown item, and so is user_id after page_id, if the data has users. Parts are written batch
    by batch, so memory does not grow with the number of pages. The folder appears when all ranks have finished, and
    belongs to one prediction until then, see `NewFolder`. The same prediction, started again after it was killed, goes
    on after the last part that all ranks have finished. A SLURM job that was put back into the queue after that finds
    its own predictions, and has nothing left to do. To a store, each rank uploads its parts at the end, and the folder
    is whole when it has a file `_SUCCESS`, see `NewStoreFolder`.

    Args:
        folder: Folder for the parts.
        raw: The log's own ids, to be written instead of rows of tables.

    Raises:
        DataError: The folder is not empty, or another prediction writes it: their parts would mix.
    """

    def __init__(self, folder: Place, raw: RawIds | None = None) -> None:
        super().__init__(write_interval="batch")
        self._job = os.environ.get("CCN_JOB", "").encode()  # folder of the SLURM job; empty outside of one
        if isinstance(folder, StorePath):
            refuse_filled_store(folder, FINISHED if (folder / WHOLE).is_file() else OTHERWISE)
        elif not self._job or metadata_of(folder).get(OF_JOB) != self._job:
            refuse_filled(folder, FINISHED if are_finished(folder) else OTHERWISE)
        self.folder, self._raw = folder, raw
        self._new: NewFolder | NewStoreFolder | None = None  # on rank 0
        self._here: tempfile.TemporaryDirectory[str] | None = None  # of a part that is to be uploaded
        self._parts: PredictionParts | None = None

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens this rank's part.

        Raises:
            DataError: Another prediction writes the folder, the store does not take it, or a vocabulary cannot be read;
            raised on every rank.
        """
        plan = self._plan(trainer)
        schema, problem = self._schema(plan, orders=getattr(pl_module, "reads_orders", False)), None
        first: int | None = 0
        if trainer.is_global_zero:
            try:
                first = self._open(plan)
            except DataError as error:
                problem = str(error)
        problem, first = trainer.strategy.broadcast((problem, first))
        if problem:
            raise DataError(problem)
        loader = trainer.predict_dataloaders
        assert isinstance(loader, PageLoader)
        if first is None:
            rank_zero_info("This job has made all predictions before it was started again.")
            loader.sampler.start = loader.sampler.steps
            return
        if isinstance(self.folder, StorePath):
            self._here = tempfile.TemporaryDirectory(prefix="ccn_predict_")
            self._place = Path(self._here.name)
        else:
            self._place = part_of(self.folder)
        self._parts = PredictionParts(self._place, trainer.global_rank, schema, first)
        if first:
            rank_zero_info(f"{self._place} has the scores of {first * BATCHES:,} batches; the rest follows.")
            loader.sampler.start = first * BATCHES

    def _open(self, plan: Mapping[str, Any]) -> int | None:
        """Makes the folder this prediction's, on rank 0; the number of parts that are there, None if it is finished."""
        if isinstance(self.folder, StorePath):
            self._new = NewStoreFolder(self.folder, OTHERWISE)
            return 0
        if metadata_of(self.folder).get(OF_PLAN) == _digest(plan):  # of this job, or it would have been refused
            return None
        self._new = NewFolder(self.folder, OTHERWISE, goes_on=lambda part: is_of(part, plan))
        (self._new.part / PLAN).write_text(json.dumps(plan))
        return whole_parts(self._new.part, plan["ranks"]) if plan["limit"] == 1.0 else 0

    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: dict[str, Tensor],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Appends a batch's scores."""
        assert self._parts is not None
        columns = {name: pa.array(values.cpu().numpy()) for name, values in prediction.items()}
        if self._raw is not None:
            columns[ITEM_ID] = self._raw.of(page_row.ITEM, prediction[ITEM_ID].cpu().numpy())
            if self._raw.user is not None:
                assert isinstance(batch, PageBatch)
                user = batch.user[self._raw.user].values()[batch.page]  # [items]
                columns[USER_ID] = self._raw.of(USER, user.cpu().numpy())
        with naming(self.folder):
            self._parts.write(batch_idx, columns)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the last part, and uploads all to a store; rank 0 gives the folder its final name, or its mark.

        Raises:
            DataError: The folder cannot be made, or the store does not take a part.
        """
        if self._parts is None:  # it was finished
            return
        with naming(self.folder):
            self._parts.close()
            self._parts.write_one_at_least()
        if isinstance(self.folder, StorePath):
            for part in sorted(self._place.iterdir()):
                (self.folder / part.name).write(part)
        self._forget()
        trainer.strategy.barrier()
        if self._new is not None:
            if isinstance(self._new, NewFolder):
                (self._new.part / PLAN).unlink()
            self._new.finish()
        rank_zero_info(f"The predictions are in {self.folder}.")

    def _plan(self, trainer: L.Trainer) -> dict[str, Any]:
        """What makes two predictions the same, so that one can go on with the other's parts."""
        data = trainer.datamodule  # type: ignore[attr-defined]  # Lightning sets it, and declares it nowhere
        checkpoint = Path(trainer.ckpt_path) / MANIFEST if trainer.ckpt_path else None
        return {
            "checkpoint": hashlib.sha256(checkpoint.read_bytes()).hexdigest() if checkpoint is not None else None,
            "pages": data.dataset.fingerprint(data.predict_split),
            "items": data.dataset.files,
            "split": data.predict_split,
            "reading": [data.batch_pages, data.lanes, data.short_length, data.long_length, BATCHES],
            "limit": trainer.limit_predict_batches,
            "precision": trainer.precision,
            "ranks": trainer.world_size,
            "raw": self._raw is not None,
        }

    def _schema(self, plan: Mapping[str, Any], orders: bool) -> pa.Schema:
        """The columns of a part, with or without that of orders, and who makes it; reads the vocabularies."""
        fields = [(PAGE_ID, pa.int64()), (ITEM_ID, pa.int64()), (PROBABILITY, pa.float32())]
        fields += [(ORDER_PROBABILITY, pa.float32())] if orders else []
        if self._raw is not None:
            fields[1] = (ITEM_ID, self._raw.type(page_row.ITEM))
            if self._raw.user is not None:
                fields.insert(1, (USER_ID, self._raw.type(USER)))
        return pa.schema(fields, {OF_JOB: self._job, OF_PLAN: _digest(plan)})

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Removes what was written, but for finished parts, with which the same prediction goes on."""
        self._forget()
        if isinstance(self._new, NewFolder) and whole_parts(self._new.part, trainer.world_size):
            self._new.leave()
        elif self._new is not None:
            self._new.discard()

    def _forget(self) -> None:
        if self._here is not None:
            self._here.cleanup()


def _digest(plan: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest().encode()

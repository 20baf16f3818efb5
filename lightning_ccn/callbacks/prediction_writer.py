"""The Parquet folder that `ccn predict` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pyarrow as pa
import pyarrow.parquet as pq
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_ccn.data import page_row
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.new_folder import NewFolder, part_of, refuse_filled
from lightning_ccn.data.raw_ids import USER, RawIds
from lightning_ccn.errors import DataError

OTHERWISE = "remove it, or name another with --output"
PAGE_ID, USER_ID, ITEM_ID, PROBABILITY = "page_id", "user_id", "item_id", "probability"


class PredictionWriter(BasePredictionWriter):
    """Writes the click probability of every exposed item, one Parquet part per rank.

    Columns are page_id, item_id (the item's row in the item table) and probability. With raw ids, item_id is the log's
    own id, null for the unknown item, and so is user_id after page_id, if the data has users. Parts are written batch
    by batch, so memory does not grow with the number of pages. The folder appears when all ranks have finished, and
    belongs to one prediction until then, see `NewFolder`.

    Args:
        folder: Folder for the parts.
        raw: The log's own ids, to be written instead of rows of tables.

    Raises:
        DataError: The folder is not empty, or another prediction writes it: their parts would mix.
    """

    def __init__(self, folder: Path, raw: RawIds | None = None) -> None:
        super().__init__(write_interval="batch")
        refuse_filled(folder, OTHERWISE)
        self.folder, self._raw = folder, raw
        self._new: NewFolder | None = None  # on rank 0
        self._writer: pq.ParquetWriter | None = None

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens this rank's part.

        Raises:
            DataError: Another prediction writes the folder, or a vocabulary cannot be read; raised on every rank.
        """
        schema = self._schema()
        problem = None
        if trainer.is_global_zero:
            try:
                self._new = NewFolder(self.folder, OTHERWISE)
            except DataError as error:
                problem = str(error)
        if problem := trainer.strategy.broadcast(problem):
            raise DataError(problem)
        path = part_of(self.folder) / f"part-{trainer.global_rank:05d}.parquet"
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

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
        assert self._writer is not None
        columns = {name: pa.array(values.cpu().numpy()) for name, values in prediction.items()}
        if self._raw is not None:
            columns[ITEM_ID] = self._raw.of(page_row.ITEM, prediction[ITEM_ID].cpu().numpy())
            if self._raw.user is not None:
                assert isinstance(batch, PageBatch)
                user = batch.user[self._raw.user].values()[batch.page]  # [items]
                columns[USER_ID] = self._raw.of(USER, user.cpu().numpy())
        schema = self._writer.schema
        self._writer.write_batch(pa.record_batch([columns[name] for name in schema.names], schema=schema))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the part; rank 0 gives the folder its final name."""
        assert self._writer is not None
        self._writer.close()
        trainer.strategy.barrier()
        if self._new is not None:
            self._new.finish()
        rank_zero_info(f"The predictions are in {self.folder}.")

    def _schema(self) -> pa.Schema:
        """The columns of a part; reads the vocabularies."""
        fields = [(PAGE_ID, pa.int64()), (ITEM_ID, pa.int64()), (PROBABILITY, pa.float32())]
        if self._raw is not None:
            fields[1] = (ITEM_ID, self._raw.type(page_row.ITEM))
            if self._raw.user is not None:
                fields.insert(1, (USER_ID, self._raw.type(USER)))
        return pa.schema(fields)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Removes what was written."""
        if self._new is not None:
            self._new.discard()

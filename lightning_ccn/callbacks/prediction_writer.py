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

from lightning_ccn.data.new_folder import NewFolder, part_of, refuse_filled
from lightning_ccn.errors import DataError

OTHERWISE = "remove it, or name another with --output"
_SCHEMA = pa.schema([("page_id", pa.int64()), ("item_id", pa.int64()), ("probability", pa.float32())])


class PredictionWriter(BasePredictionWriter):
    """Writes the click probability of every exposed item, one Parquet part per rank.

    Columns are page_id, item_id (the item's row in the item table) and probability. Parts are written batch by batch,
    so memory does not grow with the number of pages. The folder appears when all ranks have finished, and belongs to
    one prediction until then, see `NewFolder`.

    Args:
        folder: Folder for the parts.

    Raises:
        DataError: The folder is not empty, or another prediction writes it: their parts would mix.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(write_interval="batch")
        refuse_filled(folder, OTHERWISE)
        self.folder = folder
        self._new: NewFolder | None = None  # on rank 0
        self._writer: pq.ParquetWriter | None = None

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Opens this rank's part.

        Raises:
            DataError: Another prediction writes the folder; raised on every rank.
        """
        problem = None
        if trainer.is_global_zero:
            try:
                self._new = NewFolder(self.folder, OTHERWISE)
            except DataError as error:
                problem = str(error)
        if problem := trainer.strategy.broadcast(problem):
            raise DataError(problem)
        path = part_of(self.folder) / f"part-{trainer.global_rank:05d}.parquet"
        self._writer = pq.ParquetWriter(path, _SCHEMA, compression="zstd")

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
        columns = [pa.array(prediction[field.name].cpu().numpy()) for field in _SCHEMA]
        self._writer.write_batch(pa.record_batch(columns, schema=_SCHEMA))

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Closes the part; rank 0 gives the folder its final name."""
        assert self._writer is not None
        self._writer.close()
        trainer.strategy.barrier()
        if self._new is not None:
            self._new.finish()
        rank_zero_info(f"The predictions are in {self.folder}.")

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Removes what was written."""
        if self._new is not None:
            self._new.discard()

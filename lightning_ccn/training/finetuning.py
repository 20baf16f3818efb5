"""Fine-tuning: training starts from a checkpoint's weights, on newer data with larger vocabularies."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import lightning as L
import torch
from torch import Tensor

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.identity import check_same_ids, saved_numbers
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.parquet import value_column
from lightning_ccn.data.rules import read_items
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.module import CTRModule
from lightning_ccn.sharding import WarmStart, read_manifest, read_trainer_state
from lightning_ccn.sharding.warm_start import NewRows

NewIds = Literal["unknown", "category", "drawn"]
_TABLE_ROWS: dict[NewIds, NewRows] = {"unknown": "row_zero", "category": "group_mean", "drawn": "drawn"}


class FineTuning(WarmStart):
    """A warm start that refuses to freeze what it did not load: it would stay at the weights that were drawn for it."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Loads the weights, then looks at what is frozen.

        Raises:
            ShardingError: See `WarmStart`.
            OptionError: A frozen table or layer is not in the checkpoint, or has another shape there.
        """
        super().on_fit_start(trainer, pl_module)
        assert isinstance(pl_module, CTRModule)
        for name in pl_module.freeze_names:
            places = (f"tables.{name}.", f"module.model.{name}.", f"module.{name}.")  # the last: the order head
            fresh = [key for key in self.report.fresh if f"{key}.".startswith(places)]
            if fresh:
                raise OptionError(
                    f"model.freeze names {name}, but {fresh[0]} is not in {self.checkpoint}, or has another shape "
                    "there: it would stay at random weights; leave it out of model.freeze"
                )


def fine_tuning(checkpoint: Path, dataset: Dataset, new_rows: NewIds, keep_accumulators: bool) -> FineTuning:
    """The callback that starts a fit from a checkpoint's weights.

    Args:
        checkpoint: Folder of the checkpoint.
        dataset: The new data; its vocabularies extend those of the checkpoint's data.
        new_rows: Start of the rows that the checkpoint does not have: `unknown`: the unknown id's row; `category`: the
            mean of the rows of the item's category (in tables other than the items': as `unknown`); `drawn`: as the
            table has drawn them at random.
        keep_accumulators: Load the optimizers' state too.

    Raises:
        ShardingError: The checkpoint is incomplete.
        DataError: A row of the checkpoint would mean another id in the new data.
    """
    read_manifest(checkpoint)  # raises an error for an incomplete checkpoint
    saved = read_trainer_state(checkpoint).get("ccn")
    if not isinstance(saved, dict) or not all(isinstance(saved.get(part), dict) for part in ("schema", "digests")):
        raise DataError(f"{checkpoint}: not written by lightning_ccn; it names no schema to compare the data with")
    check_extension(checkpoint, Schema.from_dict(saved["schema"], str(checkpoint)), saved["digests"], dataset)
    check_same_ids(saved, dataset)
    dataset.numbers.update(saved_numbers(saved, dataset))  # the layers were trained on numbers of this scale

    def groups(table: str) -> Tensor | None:
        category = dataset.schema.category
        if table != ITEM or category is None:
            return None
        return torch.from_numpy(value_column(read_items(dataset), category)).long()

    return FineTuning(checkpoint, _TABLE_ROWS[new_rows], groups, keep_accumulators)


def check_extension(checkpoint: Path, old: Schema, digests: dict[str, str], dataset: Dataset) -> None:
    """Checks that every row of the checkpoint's tables means the same id in the new data.

    Raises:
        DataError: A table's mapping differs, a hash table has another size, or a vocabulary was not extended.
    """
    for name, table in old.tables.items():
        here = dataset.schema.tables.get(name)
        if here is None:
            continue  # the warm start's report lists it
        where = f"{dataset.folder}: table {name}"
        if here.mapping != table.mapping:
            raise DataError(f"{where} is {here.mapping} and was {table.mapping} in {checkpoint}: prepare both alike")
        if table.mapping == "hash" and here.rows != table.rows:
            raise DataError(
                f"{where} is hashed into {here.rows:,} rows and was into {table.rows:,} in {checkpoint}: ids would "
                "fall on other rows; prepare it with the same number"
            )
        if name not in digests or digests[name] == dataset.digests.get(name):
            continue
        path = dataset.folder / "vocabulary" / f"{name}.parquet"
        vocabulary = Vocabulary.load(path)
        if len(vocabulary) < table.rows or vocabulary.digest(table.rows) != digests[name]:
            raise DataError(
                f"{path}: does not extend the vocabulary of {checkpoint} ({table.rows:,} rows), so its rows mean other "
                "ids; prepare the new data with --extends and the folder that the checkpoint was trained on"
            )

"""Fine-tuning for the next promotion: a checkpoint's weights, on data whose vocabularies have grown."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.rules import read_items
from lightning_ccn.data.schema import Schema
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError
from lightning_ccn.sharding import WarmStart
from lightning_ccn.sharding.checkpoint import read_manifest, read_trainer_state
from lightning_ccn.sharding.warm_start import NewRows

NewIds = Literal["unknown", "category", "drawn"]
_TABLE_ROWS: dict[NewIds, NewRows] = {"unknown": "row_zero", "category": "group_mean", "drawn": "drawn"}


def fine_tuning(checkpoint: Path, dataset: Dataset, new_rows: NewIds, keep_accumulators: bool) -> WarmStart:
    """The callback that starts a fit from a checkpoint's weights.

    Args:
        checkpoint: the directory.
        dataset: the new data; its vocabularies extend those of the checkpoint's data.
        new_rows: how rows that the checkpoint does not have start: as the unknown id, as the mean of their category's
            items (tables other than the items': as the unknown id), or as the table drew them.
        keep_accumulators: keep the optimizers' state.

    Raises:
        ShardingError: the checkpoint is not whole.
        DataError: a row of the checkpoint would mean another id here.
    """
    read_manifest(checkpoint)  # refuses what is not whole before it is unpickled
    saved = read_trainer_state(checkpoint).get("ccn")
    if saved is None:
        raise DataError(f"{checkpoint}: not written by lightning_ccn; it names no schema to compare the data with")
    check_extension(checkpoint, Schema.from_dict(saved["schema"], str(checkpoint)), saved["digests"], dataset)

    def groups(table: str) -> Tensor | None:
        category = dataset.schema.category
        if table != ITEM or category is None:
            return None
        return torch.from_numpy(read_items(dataset)[category]).long()

    return WarmStart(checkpoint, _TABLE_ROWS[new_rows], groups, keep_accumulators)


def check_extension(checkpoint: Path, old: Schema, digests: dict[str, str], dataset: Dataset) -> None:
    """Checks that every row of the checkpoint's tables means the same id in the new data.

    Raises:
        DataError: a table's mapping differs, a hash table has another size, or a vocabulary was not extended.
    """
    for name, table in old.tables.items():
        here = dataset.schema.tables.get(name)
        if here is None:
            continue  # the report of the warm start lists it
        where = f"{dataset.folder}: table {name}"
        if here.mapping != table.mapping:
            raise DataError(f"{where} is {here.mapping} and was {table.mapping} in {checkpoint}: prepare it alike")
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

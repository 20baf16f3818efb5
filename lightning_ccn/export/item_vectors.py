"""The embeddings of all items as Parquet, for those who search neighbours elsewhere."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data import page_row
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.serving.graph_inputs import GraphInputs
from lightning_ccn.serving.package import Package

FOLDER = "item_vectors"
AT_ONCE = 1 << 16  # items


def write_item_vectors(package: Path, dataset: Dataset) -> Path:
    """Writes the embedding of every item but the unknown one, as the model sees it: the item's and its attributes'.

    Args:
        package: A written package; the file becomes a part of it.
        dataset: The data that the package was made for.

    Returns:
        The file: columns `item_id`, the log's own id (the row in the item table where there is no vocabulary), and
        `vector`, float32.
    """
    inputs, rows = GraphInputs(Package(package)), dataset.schema.tables[page_row.ITEM].rows
    ids = _ids(dataset, rows)
    width = inputs.items(np.zeros(1, np.int64)).shape[1]
    schema = pa.schema([("item_id", ids.type), ("vector", pa.list_(pa.float32(), width))])
    path = package / FOLDER / "part-00000.parquet"
    path.parent.mkdir()
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(1, len(ids) + 1, AT_ONCE):
            at = np.arange(start, min(start + AT_ONCE, len(ids) + 1))
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(inputs.items(at).ravel()), width)
            writer.write_batch(pa.record_batch([ids.slice(start - 1, len(at)), vectors], schema=schema))
    return path


def _ids(dataset: Dataset, rows: int) -> pa.Array:
    if page_row.ITEM not in dataset.digests:
        return pa.array(np.arange(1, rows))
    return Vocabulary.load(dataset.folder / "vocabulary" / f"{page_row.ITEM}.parquet").ids

"""What only a synthetic world knows of its test split; for reports, never for a batch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lightning_ccn.data.columns import decode, open_part
from lightning_ccn.data.schema import ATTAINABLE_PROBABILITY, CLICKS, TRUE_PROBABILITY, Dataset
from lightning_ccn.data.writer import Ragged


def truth(dataset: Dataset, split: str = "test") -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """True probabilities beside the clicks, a row group at a time; nothing for a log of the real world.

    Yields:
        (true probability, attainable probability, click) of the row group's exposed items, [items] each.
    """
    wanted = [TRUE_PROBABILITY, ATTAINABLE_PROBABILITY, CLICKS]
    for path in dataset.parts(split):
        with open_part(path) as file:
            if not set(wanted) <= set(file.schema_arrow.names):
                return
            for group in range(file.metadata.num_row_groups):
                rows = decode(file, group, wanted)
                columns = [rows[name] for name in wanted]
                values = [column.values for column in columns if isinstance(column, Ragged)]
                yield values[0], values[1], values[2]

"""Whether long sequences are cut as far as schema.yaml says."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.cut import LongCut
from lightning_ccn.data.parquet import PageRows, list_column
from lightning_ccn.data.places import Place
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.rules import SHOWN
from lightning_ccn.data.schema import Schema

READ = {page_row.ITEMS, page_row.TRIGGER, page_row.LONG_ITEMS}


class CutMark:
    """Looks for long behaviours that a cut to `cut_long_length` would not have left.

    What a cut should have left and did not is not to be seen: the folder does not have it.

    Args:
        schema: Schema of the dataset; it has `cut_long_length`.
        items: Item attributes by name, int [rows of the item table] each.
    """

    def __init__(self, schema: Schema, items: Mapping[str, np.ndarray | Ragged]) -> None:
        self._cut = LongCut(schema, items)

    @property
    def note(self) -> str:
        """What the reader of a report should know."""
        return (
            f"long sequences are cut to the {self._cut.most} most recent behaviours of each category of a page "
            "(cut_long_length in schema.yaml): what is said of long behaviours is of those alone"
        )

    def problems(self, path: Place, first: int, rows: PageRows) -> tuple[list[str], int]:
        """The pages of a row group with too many behaviours: a line for each of the first ones, and their number.

        Args:
            path: The file, for the message.
            first: Number of the row group's first row in the file.
            rows: The columns of the row group that have no errors.
        """
        if not rows.keys() >= READ:
            return [], 0
        long, kept = list_column(rows, page_row.LONG_ITEMS), self._cut.kept(rows)
        excess = long.lengths - np.diff(np.searchsorted(kept, long.offsets))  # [pages]
        pages = np.flatnonzero(excess)
        what = f"of no category of the page, or not among the {self._cut.most} most recent ones of theirs"
        remedy = "cut_long_length in schema.yaml says that they were left out; `ccn data cut` leaves them out"
        return [
            f"{path}: row {first + page}, column {page_row.LONG_ITEMS}: {excess[page]} of {long.lengths[page]} are "
            f"{what}; {remedy}"
            for page in pages[:SHOWN]
        ], len(pages)

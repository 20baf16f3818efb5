"""Original ids of a world's users, items and other entities, as a shop's log has them.

Every world numbers its rows 1, 2, ..., so a row says nothing about who is meant. An original id does: it is a function
of the table, the row, and the knobs that make user 17 or item 5 who they are. Folders of one world agree on it, also
when later ones have more users and items. Two different worlds have no id in common, so a model of one refuses the data
of the other.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from lightning_ccn.data.schema import Schema
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig

# The knobs by which `Catalogue` and `Population` draw parameters and behaviours. The numbers of users and items are not
# among them, because a larger world keeps its old users and items. The other knobs say what happens in promotions.
WHO = (
    *("categories", "sellers", "dims", "interests", "long_length"),
    *("exploration", "popularity_skew", "intent_spread"),
)
MOST_IDS = (
    1 << 26
)  # a larger table has no vocabulary: its ids would take gigabytes, and the other tables tell the world


def original_ids(config: WorldConfig, schema: Schema) -> dict[str, Vocabulary]:
    """The vocabulary of each table of a world, int64 ids; 8 bytes per row.

    Args:
        config: The knobs.
        schema: The world's schema.

    Returns:
        Vocabularies by table; a table with more than `MOST_IDS` rows has none.
    """
    draws = Draws(config.seed)
    who = " ".join(f"{name}={float(getattr(config, name))}" for name in WHO)
    return {
        # `Draws.bits` is a bijection of its last counter, so the ids of a table differ
        name: Vocabulary(pa.array(draws.bits(f"original id of {name}: {who}", np.arange(1, table.rows)).view(np.int64)))
        for name, table in schema.tables.items()
        if table.rows <= MOST_IDS
    }

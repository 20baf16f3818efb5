"""Converts a log to a dataset folder: `python -m own_system.dataset FOLDER`. Here the log is drawn at random.

A converter is any function that hands page rows to `DatasetWriter`. It maps original ids to table rows with a
`Vocabulary`, cuts behaviours before the page's time, and splits pages by time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.data.writer import DatasetWriter

USERS, ITEMS, CATEGORIES, PAGES = 200, 120, 6, {"train": 900, "validation": 150, "test": 250}
SECONDS_BETWEEN_PAGES, SHOWN, PAST = 60, 6, 5


def convert(folder: Path, seed: int = 0) -> Path:
    """Writes the dataset folder and returns it; items of the trigger's category are clicked more often."""
    rng = np.random.default_rng(seed)
    skus = np.array([f"sku-{number}" for number in rng.permutation(10_000)[:ITEMS]])  # original ids
    category_of = rng.integers(0, CATEGORIES, ITEMS)  # by position in `skus`
    items, users = Vocabulary(), Vocabulary()
    items.extend(skus)
    users.extend(np.arange(USERS))
    schema = Schema(
        tables={"user": Table(len(users)), "item": Table(len(items)), "category": Table(CATEGORIES + 1)},
        user=(Feature("user", "user"),),
        attributes=(Feature("category", "category"),),
        numbers=("price",),  # a number of each exposed item: a column of the page rows, standardised by the reader
        category="category",
    )
    start = 1_700_000_000
    first = 0
    with DatasetWriter(folder, schema) as writer:
        for split, count in PAGES.items():
            time = start + SECONDS_BETWEEN_PAGES * np.arange(first, first + count)
            trigger = rng.integers(0, ITEMS, count)
            shown = rng.integers(0, ITEMS, (count, SHOWN))
            past = rng.integers(0, ITEMS, (count, PAST))
            probability = np.where(category_of[shown] == category_of[trigger][:, None], 0.6, 0.1)
            before = np.repeat(time, PAST) - np.tile(np.arange(PAST, 0, -1), count)  # oldest first
            each, behaviours = np.full(count, SHOWN), np.full(count, PAST)
            writer.write(
                split,
                {
                    "page_id": np.arange(first, first + count),
                    "time": time,
                    "trigger": items.encode(skus[trigger]),
                    "user": users.encode(rng.integers(0, USERS, count)),
                    "items": Ragged.from_lengths(items.encode(skus[shown.ravel()]), each),
                    "clicks": Ragged.from_lengths(
                        (rng.random(shown.shape) < probability).ravel().astype(np.int8), each
                    ),
                    "price": Ragged.from_lengths(rng.lognormal(3, 1, shown.size).astype(np.float32), each),
                    "short_items": Ragged.from_lengths(items.encode(skus[past.ravel()]), behaviours),
                    "short_times": Ragged.from_lengths(before, behaviours),
                    "long_items": Ragged.from_lengths(items.encode(skus[past.ravel()]), behaviours),
                    "long_times": Ragged.from_lengths(before, behaviours),
                },
            )
            first += count
        unknown_first = np.concatenate([[0], category_of + 1])  # row 0 is the unknown item
        return writer.close({"category": unknown_first}, {"item": items, "user": users})


if __name__ == "__main__":
    print(f"{convert(Path(sys.argv[1]))}: written")

"""How far users follow the trigger: the share of its category among items and among clicks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lightning_ccn.data.check.trigger_category import TriggerCategory
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Schema

CATEGORY = np.array([0, 1, 1, 2, 2, 0])  # of items 0 to 5; item 0 is the unknown one, and item 5 has no category


def counted(schema: Schema, trigger: list[int], items: list[list[int]], clicks: list[list[int]]) -> list[str]:
    sign = TriggerCategory(schema)
    sign.add_items({"category": CATEGORY})
    lengths = np.array([len(page) for page in items])
    sign.add(
        {
            "trigger": np.array(trigger),
            "items": Ragged.from_lengths(np.concatenate(items), lengths),
            "clicks": Ragged.from_lengths(np.concatenate(clicks), lengths),
        }
    )
    return list(sign.figures())


def test_items_and_clicks_of_the_triggers_category_are_counted(dataset: Path) -> None:
    schema = Dataset.open(dataset).schema
    heading, items, clicks = counted(schema, [1, 4], [[2, 3, 4], [1, 3, 2]], [[1, 0, 1], [0, 1, 0]])
    assert heading == "how far users follow the trigger, on training pages"
    assert items.split() == [
        "items",
        "of",
        "the",
        "trigger's",
        "category",
        "33.3%",
    ]  # item 2 of the first, 3 of the second
    assert clicks.split() == ["clicks", "on", "these", "66.7%"]


def test_an_item_or_a_trigger_without_a_known_category_is_left_out(dataset: Path) -> None:
    schema = Dataset.open(dataset).schema
    _, items, clicks = counted(schema, [1, 0, 5], [[2, 3, 5, 0], [1, 2], [3, 4]], [[1, 0, 1, 1], [1, 1], [1, 1]])
    assert (items.split()[-1], clicks.split()[-1]) == ("50.0%", "100.0%")


def test_nothing_is_said_where_there_is_nothing_to_compare(dataset: Path) -> None:
    schema = Dataset.open(dataset).schema
    assert counted(schema, [1], [[1, 2]], [[1, 0]]) == []  # no other category
    assert counted(schema, [1], [[2, 3]], [[0, 0]]) == []  # no click
    assert counted(replace(schema, category=None), [1], [[2, 3]], [[1, 0]]) == []

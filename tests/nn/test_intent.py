"""The intent's label and loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.collate import Collator
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.nn.intent import intent_label, intent_loss

CATEGORY = np.array([0, 1, 1, 2, 2, 0])  # of items 0 (unknown) to 5; item 5 is known, its category is not


def pages(*views: tuple[int, list[int], list[int]]) -> PageBatch:
    """Pages of (trigger, items, clicks)."""
    schema = Schema(
        tables={"user": Table(2), "item": Table(6), "category": Table(3)},
        user=(Feature("user", "user"),),
        attributes=(Feature("category", "category"),),
        category="category",
    )

    def lists(values: list[list[int]]) -> Ragged:
        flat = [value for inner in values for value in inner]
        return Ragged.from_lengths(np.array(flat, dtype=np.int64), np.array([len(inner) for inner in values]))

    nothing = lists([[] for _ in views])
    return Collator(schema, {"category": CATEGORY}, {}, short_length=1, long_length=1)(
        {
            "page_id": np.arange(len(views)),
            "user": np.ones(len(views), np.int64),
            "trigger": np.array([trigger for trigger, _, _ in views]),
            "items": lists([items for _, items, _ in views]),
            "clicks": lists([clicks for _, _, clicks in views]),
            "short_items": nothing,
            "long_items": nothing,
        }
    )


@pytest.mark.parametrize(
    ("page", "label"),
    [
        ((1, [2, 3], [1, 0]), 1),
        ((1, [2, 2, 3], [1, 1, 1]), 1),
        ((1, [2, 3], [0, 1]), 0),  # it was there and not clicked
        ((1, [3, 4], [1, 1]), 0),  # only others were there
        ((1, [2, 3], [0, 0]), 0),
        ((0, [5, 3], [1, 1]), 0),  # no trigger: nobody entered for it
        ((5, [5, 3], [1, 1]), 0),  # an unknown category is no category
    ],
)
def test_the_label_is_a_click_on_the_triggers_category_on_this_page(
    page: tuple[int, list[int], list[int]], label: int
) -> None:
    neighbour = (3, [3, 3], [1, 1])  # another page's clicks must not count
    assert intent_label(pages(neighbour, page, neighbour), "category").tolist() == [1, label, 1]


def test_each_item_counts_with_the_loss_of_its_page() -> None:
    batch = pages((1, [2, 3, 3], [1, 0, 0]), (1, [3], [1]))
    intent = torch.tensor([0.3, -1.2])
    one, two = binary_cross_entropy_with_logits(intent, torch.tensor([1.0, 0.0]), reduction="none")
    torch.testing.assert_close(intent_loss(intent, batch, "category"), (3 * one + two) / 4)

"""Every system uses every feature that a schema declares: each is the only one that tells what is clicked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lightning_ccn.nn.tables import PageEmbedding

from .pages import ITEMS, SYSTEMS, Planted, auc, learn, planted

HALF = ITEMS // 2
OTHERS = ["wide_deep", "din", "sim", "dihn", "dian"]


def by_page_number(seed: int) -> Planted:
    """All items of a page are clicked if its number is above 0, and none if it is below."""
    pages = planted(seed)
    age = np.random.default_rng(seed).normal(size=len(pages.user)).astype(np.float32)
    return replace(
        pages,
        schema=replace(pages.schema, page_numbers=("age",)),
        page_numbers={"age": age},
        clicks=np.repeat(age[:, None] > 0, 6, 1),
    )


def by_the_triggers_seller(seed: int, items: range) -> Planted:
    """What the trigger's seller sells is clicked; all items are out of `items`."""
    pages, rng = planted(seed, pages=100), np.random.default_rng(seed)
    seller = np.where(np.arange(ITEMS + 1) > HALF, 3, 1) + np.arange(ITEMS + 1) % 2
    shown, trigger = rng.choice(items, (100, 6)), rng.choice(items, 100)
    return replace(
        pages,
        schema=replace(pages.schema, same_as_trigger=("seller",)),
        seller=np.where(np.arange(ITEMS + 1) > 0, seller, 0),
        items=shown,
        trigger=trigger,
        clicks=seller[shown] == seller[trigger][:, None],
    )


@pytest.mark.parametrize("name", [*OTHERS, "tan_bare"])  # these pages have one label, which CCN refuses
def test_a_pages_number_is_used(name: str) -> None:
    train, test = by_page_number(1), by_page_number(2)
    system = SYSTEMS[name](train.dataset, dim=8)
    learn(system, train.batch, steps=20, lr=0.01)
    assert auc(system.eval()(test.batch).logit, test.batch.clicks) > 0.9


@pytest.mark.parametrize("name", [*OTHERS, "ccn"])
def test_what_a_target_has_in_common_with_the_trigger_is_used(name: str) -> None:
    train = by_the_triggers_seller(1, range(1, HALF + 1))
    test = by_the_triggers_seller(2, range(HALF + 1, ITEMS + 1))  # items and sellers that training has not seen
    system = SYSTEMS[name](train.dataset, dim=8)
    learn(system, train.batch, steps=30, lr=0.03)
    assert auc(system.eval()(test.batch).logit, test.batch.clicks) > 0.9


def test_an_unknown_trigger_has_nothing_in_common_with_an_unknown_target() -> None:
    pages = by_the_triggers_seller(1, range(1, HALF + 1))
    pages = replace(pages, items=np.zeros_like(pages.items), trigger=np.zeros_like(pages.trigger))
    embedding = PageEmbedding(pages.schema, dim=8)
    assert embedding(pages.batch).numbers.unique().tolist() == [0.0]

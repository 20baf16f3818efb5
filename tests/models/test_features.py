"""Every system uses every feature that a schema declares: each is the only one that tells what is clicked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Table
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


def by_a_tag(seed: int, items: range) -> Planted:
    """What has tag 1, of three tags that each item may have, is clicked; all items are out of `items`."""
    pages, rng = planted(seed, pages=100), np.random.default_rng(seed)
    has = np.random.default_rng(0).random((ITEMS + 1, 3)) < 0.5
    has[0] = False
    tags = Ragged.from_lengths(np.nonzero(has)[1] + 1, has.sum(1))
    shown = rng.choice(items, (100, 6))
    return replace(
        pages,
        schema=replace(
            pages.schema,
            tables={**pages.schema.tables, "tag": Table(4)},
            attributes=(Feature("tags", "tag", many=True), *pages.schema.attributes),
        ),
        lists={"tags": tags},
        items=shown,
        clicks=has[shown, 0],
    )


@pytest.mark.parametrize("name", [*OTHERS, "ccn"])
def test_an_attribute_with_many_values_is_used(name: str) -> None:
    train, test = by_a_tag(1, range(1, HALF + 1)), by_a_tag(2, range(HALF + 1, ITEMS + 1))  # items not seen in training
    torch.manual_seed(0)
    system = SYSTEMS[name](train.dataset, dim=8)
    learn(system, train.batch, steps=15, lr=0.03)
    assert auc(system.eval()(test.batch).logit, test.batch.clicks) > 0.85


def by_a_vector(seed: int, items: range) -> Planted:
    """What has a vector that points to the right is clicked; all items are out of `items`."""
    pages, rng = planted(seed, pages=100), np.random.default_rng(seed)
    image = np.random.default_rng(0).normal(size=(ITEMS + 1, 2)).astype(np.float16)
    image[0] = 0
    shown = rng.choice(items, (100, 6))
    schema = replace(pages.schema, vectors={"none": 5, "image": 2})
    vectors: dict[str, np.ndarray] = {"image": image, "none": np.zeros((ITEMS + 1, 5), np.float32)}
    return replace(pages, schema=schema, vectors=vectors, items=shown, clicks=image[shown, 0] > 0)


@pytest.mark.parametrize("name", [*OTHERS, "ccn"])
def test_a_frozen_vector_of_an_item_is_used(name: str) -> None:
    train, test = by_a_vector(1, range(1, HALF + 1)), by_a_vector(2, range(HALF + 1, ITEMS + 1))
    torch.manual_seed(0)
    system = SYSTEMS[name](train.dataset, dim=8)
    learn(system, train.batch, steps=25, lr=0.03)
    # CCN's head reads a degree without a bound, in which the untrained rows of the items weigh more than elsewhere
    assert auc(system.eval()(test.batch).logit, test.batch.clicks) > (0.75 if name == "ccn" else 0.85)


def test_an_unknown_item_and_one_without_a_vector_add_zeros() -> None:
    pages = by_a_vector(1, range(1, HALF + 1))
    pages.vectors["image"][7] = 0
    embedding, batch = PageEmbedding(pages.schema, dim=8), replace(pages, items=pages.items % 8).batch
    found = embedding(batch).item[:, -16:]
    items = batch.item["item"].values()
    assert (found[:, :8] == 0).all() and (found[(items == 0) | (items == 7)] == 0).all()
    assert (found[(items > 0) & (items != 7), 8:] != 0).any(1).all() and embedding.item_dim == 5 * 8


def by_the_ratio_of_prices(seed: int, items: range) -> Planted:
    """What costs less than the trigger is clicked; all items are out of `items`."""
    pages, rng = planted(seed, pages=100), np.random.default_rng(seed)
    price = np.exp(np.random.default_rng(0).normal(size=ITEMS + 1)).astype(np.float32)
    price[0] = np.nan
    shown, trigger = rng.choice(items, (100, 6)), rng.choice(items, 100)
    return replace(
        pages,
        schema=replace(pages.schema, ratio_to_trigger=("price",)),
        amounts={"price": price},
        items=shown,
        trigger=trigger,
        clicks=price[shown] < price[trigger][:, None],
    )


@pytest.mark.parametrize("name", [*OTHERS, "ccn"])
def test_the_ratio_of_a_number_to_the_triggers_is_used(name: str) -> None:
    train = by_the_ratio_of_prices(1, range(1, HALF + 1))
    test = by_the_ratio_of_prices(2, range(HALF + 1, ITEMS + 1))
    torch.manual_seed(0)
    system = SYSTEMS[name](train.dataset, dim=8)
    learn(system, train.batch, steps=20, lr=0.03)
    assert auc(system.eval()(test.batch).logit, test.batch.clicks) > 0.85


def test_a_ratio_is_a_logarithm_and_0_where_a_number_is_unknown() -> None:
    pages = by_the_ratio_of_prices(1, range(HALF))
    pages.amounts["price"][7] = np.nan
    batch, price = pages.batch, pages.amounts["price"]
    expected = np.log(price[pages.items] / price[pages.trigger][:, None])
    found = PageEmbedding(pages.schema, dim=8)(batch).numbers
    np.testing.assert_allclose(found[:, 0], np.nan_to_num(expected).ravel(), atol=1e-6)
    assert np.isnan(expected).any()


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

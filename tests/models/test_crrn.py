"""CRRN: two interests, mixed by the intent and by how alike target and trigger are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_ccn.data.schema import Feature
from lightning_ccn.models import CRRN
from lightning_ccn.models.crrn import fuse, similarity, with_co_actions
from lightning_ccn.nn.intent import intent_loss
from lightning_ccn.nn.pairwise import category_tiers, pairwise_loss

from .pages import Planted, auc, by_mood, learn, planted


@pytest.fixture
def pages() -> Planted:
    return planted(1, pages=20)


def test_the_interest_goes_from_the_targets_to_the_triggers_as_intent_goes_to_1() -> None:
    torch.manual_seed(0)
    of_target, of_trigger = torch.randn(2, 7, 4)
    alike = torch.rand(7)
    s = alike[:, None]
    torch.testing.assert_close(fuse(torch.full((7,), 1e4), alike, of_target, of_trigger), s * of_trigger)
    torch.testing.assert_close(fuse(torch.full((7,), -1e4), alike, of_target, of_trigger), (1 - s) * of_target)
    even = (s * of_trigger + (1 - s) * of_target) / 2
    torch.testing.assert_close(fuse(torch.zeros(7), alike, of_target, of_trigger), even)


def test_the_similarity_is_that_of_directions(pages: Planted) -> None:
    pages.items[:, 0] = pages.trigger
    batch = pages.batch
    e = CRRN(pages.dataset, dim=8).embedding(batch)
    found = similarity(e, batch.page).view(20, 6)
    torch.testing.assert_close(found[:, 0], torch.tensor(1.0).sigmoid().expand(20))
    assert ((found > 0.268) & (found < 0.732)).all() and found[:, 1:].std() > 0
    scaled = replace(e, trigger=7 * e.trigger)
    torch.testing.assert_close(similarity(scaled, batch.page).view(20, 6), found)


def test_co_action_features_are_the_attributes_of_one_value_and_what_the_schema_names(pages: Planted) -> None:
    schema = pages.schema
    assert with_co_actions(schema).same_as_trigger == ("category", "seller")
    tags = Feature("tags", "seller", many=True)
    more = replace(schema, attributes=(tags, *schema.attributes), same_as_trigger=("item", "seller"))
    assert with_co_actions(more).same_as_trigger == ("item", "seller", "category")


def test_the_gate_sees_what_target_and_trigger_have_in_common(pages: Planted) -> None:
    price = np.exp(np.random.default_rng(0).normal(size=61)).astype(np.float32)
    pages = replace(pages, schema=replace(pages.schema, ratio_to_trigger=("price",)), amounts={"price": price})
    batch = replace(pages.batch, numbers=torch.full((120, 1), 9.0))  # another number, which is not in common
    dataset = pages.dataset
    dataset.schema = replace(pages.schema, numbers=("discount",))
    system = CRRN(dataset, dim=8)
    seen: list[torch.Tensor] = []
    system.interaction.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    system(batch)
    trigger = pages.trigger[:, None]
    alike = [(of[pages.items] == of[trigger]).ravel() for of in (pages.category, pages.seller)]
    expected = np.stack([*alike, np.log(price[pages.items] / price[trigger]).ravel()], 1)
    np.testing.assert_allclose(seen[0].numpy(), expected, atol=1e-6)


def test_it_learns_who_entered_for_the_trigger_and_what_such_users_click() -> None:
    torch.manual_seed(0)
    train, test = by_mood(planted(1)), by_mood(planted(2))
    system = CRRN(train.dataset, dim=8)
    learn(system, train.batch, steps=20)
    prediction = system(test.batch)
    assert auc(prediction.logit, test.clicks.ravel()) > 0.9
    assert prediction.intent is not None
    assert auc(prediction.intent, test.mood == 1) > 0.8


def test_an_intent_that_nothing_shows_is_not_found() -> None:
    torch.manual_seed(0)
    train, test = by_mood(planted(1)), by_mood(planted(2))
    hidden = [replace(pages, mood=np.random.default_rng(0).permutation(pages.mood)) for pages in (train, test)]
    system = CRRN(train.dataset, dim=8)
    learn(system, hidden[0].batch, steps=20)
    intent = system(hidden[1].batch).intent
    assert intent is not None
    assert auc(intent, test.mood == 1) == pytest.approx(0.5, abs=0.15)


def test_its_losses_are_those_of_intent_and_tiers_with_their_weights(pages: Planted) -> None:
    system, batch = CRRN(pages.dataset, dim=8, intent_weight=0.3, tier_weight=0.4), pages.batch
    prediction = system(batch)
    losses = system.auxiliary_losses(prediction, batch)
    assert prediction.intent is not None
    tiers = category_tiers(batch, "category")
    expected = {
        "intent": (intent_loss(prediction.intent, batch, "category"), 0.3),
        "tiers": (pairwise_loss(prediction.logit, tiers, batch.of_page), 0.4),
    }
    assert losses == expected
    assert not CRRN(pages.dataset, dim=8, intent_weight=0, tier_weight=0).auxiliary_losses(prediction, batch)


def test_without_triggers_or_categories_the_pairs_are_of_clicks_and_the_intent_has_no_loss(pages: Planted) -> None:
    no_triggers = replace(pages, trigger=np.zeros_like(pages.trigger))
    no_categories = replace(pages, schema=replace(pages.schema, category=None))
    for without in (no_triggers, no_categories):
        system, batch = CRRN(without.dataset, dim=8), without.batch
        prediction = system(batch)
        losses = system.auxiliary_losses(prediction, batch)
        assert list(losses) == ["tiers"]
        assert batch.clicks is not None
        of_clicks = pairwise_loss(prediction.logit, batch.clicks, batch.of_page)
        torch.testing.assert_close(losses["tiers"][0], of_clicks)

"""DIHN: intent decides how much of the query is the trigger."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lightning_ccn.models import DIHN

from .pages import auc, by_mood, far_from_the_start, learn, planted


def test_the_fused_embedding_moves_from_target_to_trigger_as_intent_goes_to_1() -> None:
    pages = planted(1, pages=20)
    system, batch = DIHN(pages.dataset, dim=8), pages.batch
    e = system.embedding(batch)
    trigger = e.trigger[batch.page]

    def fused(intent: float) -> torch.Tensor:
        return system.fuse(torch.full((20,), intent), e, batch.page)

    distance = [(fused(intent) - trigger).norm().item() for intent in (2.0, 0.0, -2.0)]
    assert distance == sorted(distance)
    torch.testing.assert_close(fused(100.0), trigger)
    torch.testing.assert_close(fused(-100.0), e.target)


def test_the_hard_sequence_is_of_the_triggers_category() -> None:
    pages = planted(1, pages=1, long=1)
    system = far_from_the_start(DIHN(pages.dataset, dim=8))
    alike = pages.category == pages.category[pages.trigger]

    def score(behaviour: int) -> torch.Tensor:
        logit: torch.Tensor = system(replace(pages, long=np.array([[behaviour]])).batch).logit
        return logit

    a, b = np.flatnonzero(alike)[:2]
    assert not torch.allclose(score(a), score(b))
    a, b = np.flatnonzero(~alike)[1:3]
    torch.testing.assert_close(score(a), score(b))


def test_it_learns_who_entered_for_the_trigger_and_what_such_users_click() -> None:
    torch.manual_seed(0)
    train, test = by_mood(planted(1)), by_mood(planted(2))
    system = DIHN(train.dataset, dim=8)
    learn(system, train.batch)
    prediction = system(test.batch)
    assert auc(prediction.logit, test.clicks.ravel()) > 0.9
    assert prediction.intent is not None
    assert auc(prediction.intent, test.mood == 1) > 0.8


def test_the_intent_loss_has_its_weight() -> None:
    pages = planted(1, pages=20)
    system, batch = DIHN(pages.dataset, dim=8, intent_weight=0.3), pages.batch
    losses = system.auxiliary_losses(system(batch), batch)
    assert [(name, weight) for name, (_, weight) in losses.items()] == [("intent", 0.3)]

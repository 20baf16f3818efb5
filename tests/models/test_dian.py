"""DIAN: a trigger-aware and a trigger-free answer, mixed by intent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from lightning_ccn.models import DIAN
from lightning_ccn.models.dian import mix

from .pages import Planted, auc, by_mood, far_from_the_start, learn, planted


@pytest.fixture
def pages() -> Planted:
    return planted(1, pages=20)


@pytest.fixture
def system(pages: Planted) -> DIAN:
    system = far_from_the_start(DIAN(pages.dataset, dim=8))
    assert isinstance(system, DIAN)
    return system


def with_intent(system: DIAN, logit: float) -> None:
    """Makes the intent net answer `logit` to every page."""
    last = system.intent.mlp[-1]
    assert isinstance(last, nn.Linear)
    nn.init.zeros_(last.weight)
    nn.init.constant_(last.bias, logit)


def answers(system: DIAN, pages: Planted) -> dict[str, Tensor]:
    """What each net answers, and the mixture."""
    found = {}
    hooks = [
        head.register_forward_hook(lambda _, __, value, name=name: found.update({name: value}))
        for name, head in (("aware", system.aware_head), ("free", system.free_head))
    ]
    found["mixed"] = system(pages.batch).logit
    for hook in hooks:
        hook.remove()
    return found


def test_at_intent_0_it_is_its_trigger_free_net_and_the_trigger_changes_nothing(system: DIAN, pages: Planted) -> None:
    with_intent(system, -1e4)
    found = answers(system, pages)
    torch.testing.assert_close(found["mixed"], found["free"])
    other = answers(system, replace(pages, trigger=pages.trigger % 60 + 1))
    torch.testing.assert_close(other["mixed"], found["mixed"])


def test_at_intent_1_it_is_its_trigger_aware_net_and_the_trigger_counts(system: DIAN, pages: Planted) -> None:
    with_intent(system, 1e4)
    found = answers(system, pages)
    torch.testing.assert_close(found["mixed"], found["aware"])
    assert not torch.allclose(found["aware"], found["free"])
    other = answers(system, replace(pages, trigger=pages.trigger % 60 + 1))
    assert not torch.allclose(other["mixed"], found["mixed"])


def test_probabilities_are_mixed_not_logits() -> None:
    torch.manual_seed(0)
    intent, aware, free = torch.randn(3, 50)
    p = intent.sigmoid()
    torch.testing.assert_close(mix(intent, aware, free).sigmoid(), p * aware.sigmoid() + (1 - p) * free.sigmoid())


def test_the_mixture_and_its_gradient_stay_finite_where_probabilities_round_to_0_and_1() -> None:
    extreme = torch.tensor([-300.0, 300.0, 50.0, -50.0])
    logits = torch.cartesian_prod(extreme, extreme, extreme).T.clone().requires_grad_()  # [3, 64]
    mixed = mix(*logits)
    mixed.sum().backward()
    assert mixed.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_it_learns_who_entered_for_the_trigger_and_what_such_users_click() -> None:
    torch.manual_seed(0)
    train, test = by_mood(planted(1)), by_mood(planted(2))
    system = DIAN(train.dataset, dim=8)
    learn(system, train.batch)
    prediction = system(test.batch)
    assert auc(prediction.logit, test.clicks.ravel()) > 0.9
    assert prediction.intent is not None
    assert auc(prediction.intent, test.mood == 1) > 0.8


def test_the_intent_loss_has_its_weight(pages: Planted) -> None:
    system, batch = DIAN(pages.dataset, dim=8, intent_weight=0.3), pages.batch
    losses = system.auxiliary_losses(system(batch), batch)
    assert [(name, weight) for name, (_, weight) in losses.items()] == [("intent", 0.3)]

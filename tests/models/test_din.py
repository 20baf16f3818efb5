"""DIN: a target meets the short behaviours of its page, one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lightning_ccn.models import DIN
from lightning_ccn.nn.activation_unit import Activation

from .pages import auc, learn, like_a_behaviour, planted


@pytest.mark.parametrize("activation", ["prelu", "dice"])
def test_it_learns_to_click_what_is_like_a_recent_behaviour(activation: Activation) -> None:
    torch.manual_seed(0)
    train, test = (like_a_behaviour(pages, pages.short) for pages in (planted(1), planted(2)))
    system = DIN(train.dataset, dim=8, activation=activation)
    learn(system, train.batch, steps=80)
    assert auc(system.eval()(test.batch).logit, test.clicks.ravel()) > 0.9


def test_short_behaviours_count_and_long_ones_do_not() -> None:
    pages = planted(1, pages=20)
    system = DIN(pages.dataset, dim=8)
    logit = system(pages.batch).logit
    torch.testing.assert_close(system(replace(pages, long=pages.long % 60 + 1).batch).logit, logit)
    assert not torch.allclose(system(replace(pages, short=pages.short % 60 + 1).batch).logit, logit)

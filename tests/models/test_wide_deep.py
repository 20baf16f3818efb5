"""Wide & Deep: the wide part memorises pairs of ids."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from lightning_ccn.models import WideDeep

from .pages import CATEGORIES, USERS, Planted, auc, learn, planted


def test_the_wide_part_learns_which_user_clicks_which_category() -> None:
    taste = np.random.default_rng(7).integers(0, 2, (USERS + 1, CATEGORIES + 1))

    def by_taste(pages: Planted) -> Planted:
        return replace(pages, clicks=taste[pages.user[:, None], pages.category[pages.items]])

    torch.manual_seed(0)
    train, test = by_taste(planted(1)), by_taste(planted(2)).batch
    system = WideDeep(train.dataset, dim=8, cross_rows=10_000)
    learn(system, train.batch)
    assert system.wide is not None
    assert auc(system.wide(test), test.clicks) > 0.9
    assert auc(system(test).logit, test.clicks) > 0.9


def test_the_wide_part_starts_at_nothing_and_adds_to_the_deep_one() -> None:
    pages = planted(1, pages=20)
    system, batch = WideDeep(pages.dataset, dim=8, cross_rows=1_000), pages.batch
    assert system.wide is not None
    before = system(batch).logit
    assert not system.wide(batch).any()
    with torch.no_grad():
        for weight in system.wide.parameters():
            weight.uniform_(-1, 1)
    assert system.wide(batch).all()
    torch.testing.assert_close(system(batch).logit, before + system.wide(batch))


def test_short_behaviours_count_and_long_ones_do_not() -> None:
    pages = planted(1, pages=20)
    system = WideDeep(pages.dataset, dim=8)
    logit = system(pages.batch).logit
    torch.testing.assert_close(system(replace(pages, long=pages.long % 60 + 1).batch).logit, logit)
    assert not torch.allclose(system(replace(pages, short=pages.short % 60 + 1).batch).logit, logit)

"""SIM: the long sequence searched by the target's category, however long it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_ccn.models import SIM

from .pages import auc, far_from_the_start, learn, like_a_behaviour, planted

Score = Callable[[list[int]], torch.Tensor]


def test_it_learns_to_click_what_is_like_an_old_behaviour() -> None:
    torch.manual_seed(0)
    train, test = (like_a_behaviour(pages, pages.long) for pages in (planted(1), planted(2)))
    system = SIM(train.dataset, dim=8)
    learn(system, train.batch)
    assert auc(system(test.batch).logit, test.clicks.ravel()) > 0.9


@pytest.fixture
def score() -> Score:
    """The score of item 1 with a long sequence."""
    pages = planted(1, pages=1)
    pages.items[:] = 1
    system = far_from_the_start(SIM(pages.dataset, dim=8))

    def score(long: list[int]) -> torch.Tensor:
        logit: torch.Tensor = system(replace(pages, long=np.array([long])).batch).logit[0]
        return logit

    return score


def of_category(same: bool) -> list[int]:
    """Items of item 1's category, or of the others."""
    category = planted(1, pages=1).category
    return [item for item in range(2, len(category)) if (category[item] == category[1]) == same]


def test_long_behaviours_of_other_categories_are_ignored(score: Score) -> None:
    same, others = of_category(True), of_category(False)
    torch.testing.assert_close(score([*others, same[0], *others]), score(same[:1]))
    assert not torch.allclose(score([*others, same[0]]), score([*others, same[1]]))


def test_a_thousand_behaviours_of_one_category_are_all_seen(score: Score) -> None:
    one, other = of_category(True)[:2]
    base = score([one] * 1_000)
    assert not torch.allclose(score([other] * 500 + [one] * 500), base)
    torch.testing.assert_close(score([other] * 500 + [one] * 1_000), base)  # the reader keeps the most recent

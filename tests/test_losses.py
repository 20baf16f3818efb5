"""The training loss: weights of items, and biases of positions that a score leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_ccn.losses import LossWeights, PositionBias, batch_losses
from lightning_ccn.models import CCN, CRRN, SIM
from tests.models.pages import planted

POSITIONS = torch.arange(6).repeat(400)  # of the planted pages' items


def test_a_weight_counts_an_item_as_often() -> None:
    pages = planted(1, pages=2)
    system = SIM(pages.dataset, dim=8)
    batch = replace(pages.batch, weight=torch.tensor([2.0] + [0.0] * 11))
    prediction = system(batch)
    assert batch.clicks is not None
    first = torch.nn.functional.binary_cross_entropy_with_logits(prediction.logit[0], batch.clicks[0])
    losses = batch_losses(system, None, LossWeights(), prediction, batch)
    assert losses.terms["loss"].item() == pytest.approx(2 * first.item() / 12)


def test_what_a_position_explains_is_not_in_the_scores() -> None:
    pages, rng = planted(1), np.random.default_rng(0)
    items = np.sort(rng.integers(1, 13, (400, 6)), axis=1)  # a low number comes first, and is clicked as others there
    pages = replace(pages, clicks=rng.random((400, 6)) < np.array([0.9, 0.7, 0.5, 0.3, 0.2, 0.1]), items=items)
    batch = replace(pages.batch, position=POSITIONS)
    slopes = []
    for positions in (None, PositionBias(6)):
        torch.manual_seed(0)
        system = SIM(pages.dataset, dim=8)
        groups = [{"params": system.parameters(), "lr": 0.01}]
        if positions is not None:
            groups.append({"params": positions.parameters(), "lr": 0.2})
        optimizer = torch.optim.Adam(groups)
        for _ in range(40):
            optimizer.zero_grad()
            batch_losses(system, positions, LossWeights(), system(batch), batch).terms["loss"].backward()
            optimizer.step()
        score = system.eval()(batch).logit.detach().numpy()
        slopes.append(np.polyfit(items.ravel(), score, 1)[0])
        if positions is not None:
            assert (positions.bias.diff() < 0).all()
    assert slopes[0] < 0
    assert abs(slopes[1]) < 0.5 * abs(slopes[0])


def test_positions_enter_the_ranking_losses_too() -> None:
    pages = planted(1)
    system = SIM(pages.dataset, dim=8)
    batch, bias = replace(pages.batch, position=POSITIONS), PositionBias(6)
    with torch.no_grad():
        bias.bias.copy_(torch.arange(6.0))
    prediction = system(batch)
    weights = LossWeights(listwise=1.0, pairwise=0.5)
    with_bias, without = (batch_losses(system, of, weights, prediction, batch).terms for of in (bias, None))
    for name in ("listwise", "pairwise"):
        assert not torch.isclose(with_bias[name], without[name])
    expected = with_bias["ce"] + with_bias["listwise"] + 0.5 * with_bias["pairwise"]
    torch.testing.assert_close(with_bias["loss"], expected)


def test_positions_enter_a_systems_own_ranking_loss_too() -> None:
    pages = planted(1, pages=50)
    system, bias = CRRN(pages.dataset, dim=8), PositionBias(6)
    batch = replace(pages.batch, position=POSITIONS[:300])
    with torch.no_grad():
        bias.bias.copy_(torch.arange(6.0))
    prediction = system(batch)
    found = batch_losses(system, bias, LossWeights(), prediction, batch).terms["tiers"]
    seen = replace(prediction, logit=prediction.logit + bias.bias[POSITIONS[:300]])
    torch.testing.assert_close(found, system.auxiliary_losses(seen, batch)["tiers"][0])


def test_the_auxiliary_factor_counts_for_the_systems_own_losses_alone() -> None:
    pages = planted(1)
    system = CCN(pages.dataset, dim=8, contrast_weight=0.5)
    weights, prediction = LossWeights(pairwise=1.0), system(pages.batch)
    once, thrice = (batch_losses(system, None, weights, prediction, pages.batch, by).terms for by in (1.0, 3.0))
    added = sum(weight * value for value, weight in system.auxiliary_losses(prediction, pages.batch).values())
    torch.testing.assert_close(thrice["loss"] - once["loss"], 2 * added)
    assert all(torch.equal(once[name], thrice[name]) for name in ("ce", "repulsion", "attraction", "pairwise"))

"""The order head: p(order) = p(click) p(order | click), exact for any logits, learned from all impressions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.losses import LossWeights, PositionBias, batch_losses
from lightning_ccn.models import SIM, TAN
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.nn.order_head import OrderHead, order_logit, order_loss
from tests.models.pages import SYSTEMS, Planted, auc, planted

GENERATOR = torch.Generator().manual_seed(0)
CLICK, CONVERSION = torch.randn(2, 50, dtype=torch.float64, generator=GENERATOR) * 4
ORDERS = torch.randint(0, 2, (50,), generator=GENERATOR).double()


def sold_by_seller_1(seed: int) -> tuple[Planted, PageBatch]:
    """Pages on which every item is clicked as often as any other, and a click on an item of seller 1 is an order."""
    pages = planted(seed)
    orders = pages.clicks * (pages.seller[pages.items] == 1)
    return pages, replace(pages.batch, orders=torch.from_numpy(orders.ravel()).float())


def test_the_logit_is_that_of_the_product() -> None:
    product = CLICK.sigmoid() * CONVERSION.sigmoid()
    torch.testing.assert_close(order_logit(CLICK, CONVERSION), product.logit())
    torch.testing.assert_close(
        order_loss(CLICK, CONVERSION, ORDERS), nn.functional.binary_cross_entropy(product, ORDERS)
    )


def test_the_gradient_is_the_closed_form() -> None:
    click, conversion = (logit.clone().requires_grad_() for logit in (CLICK, CONVERSION))
    found = torch.autograd.grad(order_loss(click, conversion, ORDERS), [click, conversion])
    p = (click.sigmoid() * conversion.sigmoid()).detach()
    for logit, gradient in zip((CLICK, CONVERSION), found, strict=True):
        # of an order, -log sigmoid; of none, -log(1 - p)
        expected = torch.where(ORDERS == 1, -torch.sigmoid(-logit), p * torch.sigmoid(-logit) / (1 - p)) / 50
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("order", [0.0, 1.0])
def test_extreme_logits_have_a_finite_loss_and_gradient(order: float) -> None:
    ends = torch.tensor([-1e30, -1e4, -90.0, 0.0, 90.0, 1e4, 1e30])
    click, conversion = (side.ravel().requires_grad_() for side in torch.meshgrid(ends, ends, indexing="ij"))
    loss = order_loss(click, conversion, torch.full((49,), order))
    gradients = torch.autograd.grad(loss, [click, conversion])
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_a_batch_without_items_costs_nothing_and_a_weight_counts_an_item_as_often() -> None:
    empty = torch.zeros(0, requires_grad=True)
    loss = order_loss(empty, empty, torch.zeros(0))
    loss.backward()
    assert loss.item() == 0
    weight = torch.zeros(50).double()
    weight[7] = 2
    one = order_loss(CLICK[7:8], CONVERSION[7:8], ORDERS[7:8])
    torch.testing.assert_close(order_loss(CLICK, CONVERSION, ORDERS, weight), 2 * one / 50)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_can_have_one_that_answers_for_each_item_and_changes_no_click(name: str) -> None:
    pages = planted(1, pages=4)
    batch = replace(pages.batch, short_gap=torch.zeros(8).long(), long_gap=torch.zeros_like(pages.batch.long))
    system = SYSTEMS[name](pages.dataset, dim=8).eval()
    before = system(batch).logit
    head = OrderHead(system)
    assert torch.equal(system(batch).logit, before)
    conversion = head.conversion()
    assert conversion.shape == before.shape
    conversion.sum().backward()
    shared = [name for name, weight in system.named_parameters() if weight.grad is not None]
    assert shared and not any(name.startswith(("head.", "deep.")) for name in shared)  # below both heads


def test_a_system_without_a_head_of_its_own_is_refused() -> None:
    class Flat(System):
        def forward(self, batch: PageBatch) -> Prediction:
            return Prediction(torch.zeros(batch.items))

    with pytest.raises(ValueError, match="Flat has no click head to copy for orders: give it a PageMLP"):
        OrderHead(Flat())


def test_what_sells_although_it_is_clicked_like_the_rest_is_found() -> None:
    torch.manual_seed(0)
    pages, batch = sold_by_seller_1(seed=1)
    system = TAN(pages.dataset, dim=8)
    head = OrderHead(system)

    def answer(of: PageBatch) -> Prediction:
        return replace(system(of), conversion=head.conversion())

    optimizer = torch.optim.Adam([*system.parameters(), *head.parameters()], 0.03)
    for _ in range(12):
        optimizer.zero_grad()
        batch_losses(system, None, LossWeights(order=1.0), answer(batch), batch).terms["loss"].backward()
        optimizer.step()
    _, fresh = sold_by_seller_1(seed=2)
    found = answer(fresh)
    assert found.conversion is not None
    assert auc(order_logit(found.logit, found.conversion), fresh.orders) > 0.9
    assert auc(found.logit, fresh.orders) < 0.85  # above chance, because an order tells of a click too


def test_the_loss_of_a_batch_has_the_orders_with_their_weight_and_the_positions() -> None:
    pages, batch = sold_by_seller_1(seed=1)
    system = SIM(pages.dataset, dim=8)
    head = OrderHead(system)
    prediction = replace(system(batch), conversion=head.conversion())
    terms, without = (
        batch_losses(system, None, LossWeights(order=weight), prediction, batch).terms for weight in (0.5, 0.0)
    )
    torch.testing.assert_close(terms["loss"], terms["ce"] + 0.5 * terms["order"])
    assert "order" not in without
    bias, position = PositionBias(6), torch.arange(6).repeat(400)
    with torch.no_grad():
        bias.bias.copy_(torch.arange(6.0))
    seen = batch_losses(system, bias, LossWeights(order=1.0), prediction, replace(batch, position=position)).terms
    assert prediction.conversion is not None and batch.orders is not None
    torch.testing.assert_close(
        seen["order"], order_loss(prediction.logit + position, prediction.conversion, batch.orders)
    )

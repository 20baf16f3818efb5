"""The pairwise loss against a loop over pages and pairs, and CRRN's tiers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_ccn.data.padding import Places
from lightning_ccn.nn.contrastive import PageDegrees, repulsion_loss
from lightning_ccn.nn.listwise import listwise_softmax_loss
from lightning_ccn.nn.pairwise import category_tiers, pairwise_loss
from tests.models.pages import planted

LENGTHS = [4, 0, 1, 3, 2, 1, 6]
CLICK = torch.tensor([1, 0, 1, 0, 1, 0, 0, 0, 1, 1, 0, 1, 1, 0, 0, 1, 0])  # two of four, the only one, none, all, ...
TIER = torch.tensor([3, 0, 2, 1, 3, 0, 1, 0, 2, 2, 0, 3, 2, 1, 0, 2, 1])
of_clicks_and_tiers = pytest.mark.parametrize("tier", [CLICK, TIER], ids=["clicks", "tiers"])


def places(lengths: list[int]) -> Places:
    longest = max(*lengths, 1)
    rows = [page * longest + place for page, length in enumerate(lengths) for place in range(length)]
    return Places(torch.tensor(rows, dtype=torch.int64), len(lengths), longest)


def by_hand(logit: Tensor, tier: Tensor, lengths: list[int]) -> Tensor:
    total = logit.new_zeros(())
    for page, tiers in zip(logit.split(lengths), tier.split(lengths), strict=True):
        pairs = [
            torch.log1p((low - high).exp())
            for high, upper in zip(page, tiers, strict=True)
            for low, lower in zip(page, tiers, strict=True)
            if upper > lower
        ]
        if pairs:
            total = total + len(page) * torch.stack(pairs).mean()
    return total / max(len(logit), 1)


@pytest.fixture
def logit() -> Tensor:
    torch.manual_seed(0)
    return (3 * torch.randn(17, dtype=torch.float64)).requires_grad_()


@of_clicks_and_tiers
def test_value_and_gradient_are_those_of_a_loop_over_pairs(tier: Tensor, logit: Tensor) -> None:
    found, expected = pairwise_loss(logit, tier, places(LENGTHS)), by_hand(logit, tier, LENGTHS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logit)[0] for loss in (found, expected)))


def test_gradcheck(logit: Tensor) -> None:
    assert torch.autograd.gradcheck(lambda x: pairwise_loss(x, CLICK, places(LENGTHS)), (logit,))


def test_a_shift_of_a_pages_logits_changes_nothing(logit: Tensor) -> None:
    shift = torch.tensor([7.0, 0, -3, 2, -9, 1, 4], dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS))
    of_page = places(LENGTHS)
    torch.testing.assert_close(pairwise_loss(logit + shift, CLICK, of_page), pairwise_loss(logit, CLICK, of_page))


def test_the_order_of_a_pages_items_changes_nothing(logit: Tensor) -> None:
    order = torch.tensor([3, 1, 0, 2, *range(4, 11), 16, 11, 15, 12, 14, 13])
    of_page = places(LENGTHS)
    torch.testing.assert_close(pairwise_loss(logit[order], CLICK[order], of_page), pairwise_loss(logit, CLICK, of_page))


@of_clicks_and_tiers
def test_other_labels_and_other_signs_are_the_same(tier: Tensor, logit: Tensor) -> None:
    of_page = places(LENGTHS)
    turned = pairwise_loss(-logit, tier.max() - tier, of_page)
    torch.testing.assert_close(turned, pairwise_loss(logit, tier, of_page))


def test_pages_of_one_tier_contribute_nothing(logit: Tensor) -> None:
    for tier in (0, 1, 3):
        logit.grad = None
        loss = pairwise_loss(logit, torch.full((17,), tier), places(LENGTHS))
        loss.backward()
        assert loss.item() == 0
        assert logit.grad is not None
        assert not torch.as_tensor(logit.grad).any()


def test_a_higher_clicked_item_lowers_the_loss(logit: Tensor) -> None:
    pairwise_loss(logit, CLICK, places(LENGTHS)).backward()
    assert logit.grad is not None
    in_pairs = torch.tensor([1] * 4 + [0] * 7 + [1] * 6).bool()
    assert (logit.grad[(CLICK == 1) & in_pairs] < 0).all()
    assert (logit.grad[(CLICK == 0) & in_pairs] > 0).all()


def test_a_pair_alone_has_the_repulsion_loss_and_twice_the_listwise_loss() -> None:
    logit, clicks, lengths = torch.tensor([0.3, -1.2]), torch.tensor([0, 1]), torch.tensor([2])
    loss = pairwise_loss(logit, clicks, places([2]))
    torch.testing.assert_close(loss, 2 * listwise_softmax_loss(logit, clicks, lengths))
    page = PageDegrees.of(logit, clicks, torch.tensor([0, 0]), 1)
    torch.testing.assert_close(loss, repulsion_loss(page, temperature=1.0))


def test_it_is_computed_in_float32_under_autocast(logit: Tensor) -> None:
    single = logit.detach().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = pairwise_loss(single, CLICK, places(LENGTHS))
    assert loss.dtype == torch.float32
    assert loss == pairwise_loss(single, CLICK, places(LENGTHS))


def test_the_parts_of_a_batch_on_two_ranks_weigh_as_their_items(logit: Tensor) -> None:
    first, rest = sum(LENGTHS[:4]), sum(LENGTHS[4:])
    parts = [
        pairwise_loss(logit[:first], CLICK[:first], places(LENGTHS[:4])) * first,
        pairwise_loss(logit[first:], CLICK[first:], places(LENGTHS[4:])) * rest,
    ]
    torch.testing.assert_close(sum(parts) / (first + rest), pairwise_loss(logit, CLICK, places(LENGTHS)))


def test_a_batch_without_items_has_a_loss_of_0_with_a_gradient() -> None:
    logit = torch.zeros(0, requires_grad=True)
    loss = pairwise_loss(logit, torch.zeros(0), places([0]))
    loss.backward()
    assert loss.item() == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_logits_stay_finite_in_float32(dtype: torch.dtype) -> None:
    logit = torch.tensor([1e4, -1e4, 0.0, 3e4], dtype=dtype, requires_grad=True)
    loss = pairwise_loss(logit, torch.tensor([0, 1, 0, 0]), places([3, 1]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logit.grad is not None
    assert logit.grad.isfinite().all()


def test_a_tier_is_twice_the_click_plus_the_triggers_category() -> None:
    pages = planted(1, pages=50)
    pages.category[[1, 2, 3]] = 0  # an unknown category is no category, the trigger's neither
    pages.trigger[:5] = 2
    alike = pages.category[pages.items] == pages.category[pages.trigger][:, None]
    expected = 2 * pages.clicks + (alike & (pages.category[pages.items] > 0))
    assert set(expected.ravel()) == {0, 1, 2, 3}
    assert category_tiers(pages.batch, "category").tolist() == expected.ravel().tolist()
    assert category_tiers(pages.batch, None).tolist() == pages.clicks.ravel().tolist()

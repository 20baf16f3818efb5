"""DEI2N: how strong the instant interest is, and when behaviours were."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.models import DEI2N
from lightning_ccn.models.dei2n import mixed_interest

from .pages import Planted, auc, far_from_the_start, learn, loss, planted


@pytest.fixture
def pages() -> Planted:
    return planted(1, pages=20)


@pytest.fixture
def system(pages: Planted) -> DEI2N:
    torch.manual_seed(0)
    system = far_from_the_start(DEI2N(pages.dataset, dim=8))
    assert isinstance(system, DEI2N)
    return system


def with_gaps(batch: PageBatch, seed: int = 0) -> PageBatch:
    """The batch with random time gaps."""
    gaps = torch.Generator().manual_seed(seed)
    short, long = (torch.randint(68, of.shape, generator=gaps) for of in (batch.short, batch.long))
    return replace(batch, short_gap=short, long_gap=long)


def test_the_interest_goes_from_the_targets_to_the_triggers_as_the_instant_one_grows() -> None:
    torch.manual_seed(0)
    of_trigger, of_target, page = torch.randn(2, 4), torch.randn(5, 4), torch.tensor([0, 0, 1, 1, 1])
    torch.testing.assert_close(mixed_interest(torch.full((2,), 1e4), of_trigger, of_target, page), of_trigger[page])
    torch.testing.assert_close(mixed_interest(torch.full((2,), -1e4), of_trigger, of_target, page), of_target)
    one_of_each = mixed_interest(torch.tensor([1e4, -1e4]), of_trigger, of_target, page)
    torch.testing.assert_close(one_of_each, torch.cat([of_trigger[[0, 0]], of_target[2:]]))


def test_the_gate_sees_user_trigger_and_the_long_behaviours_of_its_category(pages: Planted, system: DEI2N) -> None:
    batch = pages.batch
    e = system.embedding(batch)
    row_of = {int(item): row for row, item in enumerate(batch.item["item"].values())}
    seen = []
    for page in range(20):
        category = pages.category[pages.trigger[page]]
        hard = [row_of[item] for item in pages.long[page] if pages.category[item] == category]
        summed = e.item[hard].sum(0)
        count = torch.tensor([math.log(1 + len(hard))])
        seen.append(torch.cat([e.user[page], summed, e.trigger[page], 20 * e.trigger[page] * summed, count]))
    torch.testing.assert_close(system(batch).intent, system.gate(torch.stack(seen))[:, 0])


def test_every_gap_counts_and_none_without_time(pages: Planted, system: DEI2N) -> None:
    batch = with_gaps(pages.batch)
    timeless = DEI2N(pages.dataset, dim=8, time=False)
    assert (system.reads_gaps, timeless.reads_gaps) == (True, False)
    page = int(batch.long_lengths[batch.trigger_group].argmax())  # one with a hard sequence
    first = batch.long_lengths.cumsum(0) - batch.long_lengths
    for name, at in (("short_gap", 2 * page), ("long_gap", first[batch.trigger_group[page]])):
        gap = getattr(batch, name).clone()
        gap[at] = (gap[at] + 30) % 68
        other = replace(batch, **{name: gap})
        moved = (system(other).logit != system(batch).logit).view(20, 6).any(1)
        assert moved.nonzero().tolist() == [[page]]
        assert torch.equal(timeless(other).logit, timeless(batch).logit)
    unread = replace(batch, short_gap=None, long_gap=None)
    assert torch.equal(timeless(unread).logit, timeless(batch).logit)


def test_a_sequence_may_be_in_any_order_as_long_as_its_gaps_are_in_the_same(pages: Planted, system: DEI2N) -> None:
    batch = with_gaps(pages.batch)
    assert batch.short_gap is not None
    order = torch.arange(len(batch.short)).view(20, 2).flip(1).flatten()
    both = replace(batch, short=batch.short[order], short_gap=batch.short_gap[order])
    torch.testing.assert_close(system(both).logit, system(batch).logit)
    gaps_alone = replace(batch, short_gap=batch.short_gap[order])
    assert not torch.allclose(system(gaps_alone).logit, system(batch).logit)


@pytest.mark.slow
def test_it_learns_that_recent_behaviours_count() -> None:
    torch.manual_seed(0)
    train, test = (with_recent_clicks(seed) for seed in (1, 2))
    system = DEI2N(train[0].dataset, dim=8)
    learn(system, train[1], steps=50)
    assert auc(system(test[1]).logit, test[1].clicks) > 0.9


def with_recent_clicks(seed: int) -> tuple[Planted, PageBatch]:
    """Clicks on what has the category of that one of two behaviours which was minutes ago; the other was weeks ago."""
    pages = planted(seed, short=2)
    recent = np.random.default_rng(seed).integers(0, 2, len(pages.user))
    of_recent = pages.category[pages.short[np.arange(len(recent)), recent]]
    pages = replace(pages, clicks=pages.category[pages.items] == of_recent[:, None])
    gap = np.where(np.arange(2) == recent[:, None], 5, 60)
    return pages, replace(pages.batch, short_gap=torch.from_numpy(gap.ravel()))


def test_the_gate_learns_from_the_first_step_on(pages: Planted) -> None:
    system = DEI2N(pages.dataset, dim=8)
    batch = with_gaps(pages.batch)
    system(batch).logit.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in system.gate.parameters())
    assert not system.auxiliary_losses(system(batch), batch)


def test_without_any_behaviour_all_interests_are_zero_and_gradients_finite(pages: Planted) -> None:
    nobody = replace(pages, short=pages.short[:, :0], long=pages.long[:, :0])
    system = DEI2N(pages.dataset, dim=8)
    seen: list[torch.Tensor] = []
    system.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    loss(system, nobody.batch).backward()
    _, _, of_hard, mixed, _ = seen[0].split([*[system.embedding.item_dim] * 4, system.embedding.number_dim], 1)
    assert not of_hard.any() and not mixed.any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in system.parameters())

"""Every system: what its scores depend on, and which parameters have gradients."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ccn.data.ragged import Ragged, take
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.models.system import System

from .pages import (
    OF_ITEMS,
    SYSTEMS,
    WITHOUT_TRIGGER,
    far_from_the_start,
    longest_page,
    loss,
    page_with,
    scores,
)

Make = Callable[..., nn.Module]
every_system = pytest.mark.parametrize("make", SYSTEMS.values(), ids=list(SYSTEMS))


@pytest.fixture(scope="module", params=SYSTEMS.values(), ids=list(SYSTEMS))
def system(request: pytest.FixtureRequest, reader: PageBatches) -> nn.Module:
    torch.manual_seed(0)
    return far_from_the_start(request.param(reader.dataset, dim=8)).eval()


def test_a_score_does_not_change_when_page_mates_are_removed_reordered_or_replaced(
    system: nn.Module, reader: PageBatches
) -> None:
    at = longest_page(reader)
    all_of_it = page_with(reader, at, np.arange(4))
    base = scores(system, reader, all_of_it)
    for order in ([2], [2, 0], [3, 2, 1, 0]):
        found = scores(system, reader, page_with(reader, at, order))
        torch.testing.assert_close(found[order.index(2)], base[2])
    items = all_of_it["items"]
    assert isinstance(items, Ragged)
    replaced = {**all_of_it, "items": Ragged(np.where(np.arange(4) == 2, items.values, 1), items.offsets)}
    torch.testing.assert_close(scores(system, reader, replaced)[2], base[2])


def test_a_score_does_not_depend_on_labels_or_on_other_pages(system: nn.Module, reader: PageBatches) -> None:
    batch = reader[0, 0]
    together = system(batch).logit
    batch.clicks = None
    assert torch.equal(system(batch).logit, together)
    ends = batch.page_lengths.cumsum(0)
    for at in (0, 5):
        page = {name: take(column, np.array([at])) for name, column in reader.row_group(0).items()}
        alone = scores(system, reader, page)
        torch.testing.assert_close(alone, together[ends[at] - batch.page_lengths[at] : ends[at]])


@every_system
def test_a_system_that_reads_no_long_behaviours_says_so(make: Make, reader: PageBatches) -> None:
    system = far_from_the_start(make(reader.dataset, dim=8)).eval()
    assert isinstance(system, System)
    without = PageBatches(reader.dataset, "test", batch_pages=24, short_length=5, long_length=0)[0, 0]
    if system.reads_long:
        with pytest.raises(ValueError, match="the batch has no long behaviours, since the system says"):
            system(without)
    else:
        torch.testing.assert_close(system(without).logit, system(reader[0, 0]).logit)
        assert without.item.stride() < reader[0, 0].item.stride()  # their items are not looked up


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_score_depends_on_the_trigger_only_where_the_system_sees_it(name: str, reader: PageBatches) -> None:
    rows = reader.row_group(0)
    other = {**rows, "trigger": (np.asarray(rows["trigger"]) % 60) + 1}
    system = far_from_the_start(SYSTEMS[name](reader.dataset, dim=8)).eval()
    here, there = scores(system, reader, rows), scores(system, reader, other)
    if name in WITHOUT_TRIGGER:
        torch.testing.assert_close(here, there)
    else:
        assert not torch.allclose(here, there)


@every_system
def test_the_lookup_kernel_changes_no_score(make: Make, reader: PageBatches) -> None:
    bags, sequences = (make(reader.dataset, dim=8, item_kernel=kernel).eval() for kernel in ("bag", "sequence"))

    def key(name: str) -> str:
        return re.sub(r"\b(users|items)\.collection\.embedding_bags\.", r"\1.collection.embeddings.", name)

    sequences.load_state_dict({key(name): value for name, value in bags.state_dict().items()})
    torch.testing.assert_close(sequences(reader[0, 0]).logit, bags(reader[0, 0]).logit)


@every_system
def test_tables_of_half_precision_change_a_score_by_their_rounding(make: Make, reader: PageBatches) -> None:
    single, half = (make(reader.dataset, dim=8, table_dtype=dtype).eval() for dtype in ("fp32", "fp16"))
    half.load_state_dict(single.state_dict())
    of_items = {key: value.dtype for key, value in half.state_dict().items() if ".items." in key}
    assert of_items and set(of_items.values()) == {torch.float16}
    logit = half(reader[0, 0]).logit
    assert logit.dtype == torch.float32
    torch.testing.assert_close(logit, single(reader[0, 0]).logit, atol=1e-3, rtol=0)


def assert_gradients(system: nn.Module) -> None:
    """DDP waits for the gradient of every parameter, on every rank."""
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@every_system
def test_every_parameter_has_a_gradient(make: Make, reader: PageBatches) -> None:
    system = make(reader.dataset, dim=8)
    loss(system, reader[0, 0]).backward()
    assert_gradients(system)


@every_system
def test_a_batch_without_items_has_loss_0_and_gradients_of_0(make: Make, reader: PageBatches) -> None:
    rows = reader.row_group(0)
    nothing = {name: Ragged(rows[name].values[:0], np.zeros(25, np.int64)) for name in OF_ITEMS}  # type: ignore[union-attr]
    batch, system = reader.collator({**rows, **nothing}), make(reader.dataset, dim=8)
    total = loss(system, batch)
    total.backward()
    assert (batch.items, total.item()) == (0, 0)
    assert_gradients(system)
    assert not any(parameter.grad.any() for parameter in system.parameters())  # type: ignore[union-attr]


@every_system
def test_every_system_scores_under_bf16_autocast(make: Make, reader: PageBatches) -> None:
    system = make(reader.dataset, dim=8).eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logit = system(reader[0, 0]).logit.float()
    torch.testing.assert_close(logit, system(reader[0, 0]).logit, atol=0.02, rtol=0.05)

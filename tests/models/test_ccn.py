"""TAN and CCN: what a score depends on, and what is learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.collate import Rows, take
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.data.schema import Dataset
from lightning_ccn.data.writer import Ragged
from lightning_ccn.models import CCN, TAN
from lightning_ccn.models import ccn as ccn_file

OF_ITEMS = ("items", "clicks", "price")


@pytest.fixture(scope="module")
def reader(dataset: Path) -> PageBatches:
    return PageBatches(Dataset.open(dataset), "test", batch_pages=24, short_length=5, long_length=4)


@pytest.fixture(scope="module")
def model(reader: PageBatches) -> CCN:
    torch.manual_seed(0)
    model = CCN(reader.dataset, dim=8)
    with torch.no_grad():
        for parameter in model.parameters():  # far from the start, where everything is small
            parameter.mul_(3)
    return model


def page_with(reader: PageBatches, at: int, order: list[int] | np.ndarray) -> Rows:
    """Page `at` of the split with its exposed items chosen and ordered by `order`."""
    page = {name: take(column, np.array([at])) for name, column in reader._rows(0).items()}
    for name in OF_ITEMS:
        column = page[name]
        assert isinstance(column, Ragged)
        page[name] = Ragged(column.values[order], np.array([0, len(order)]))
    return page


def scores(model: torch.nn.Module, reader: PageBatches, rows: Rows) -> torch.Tensor:
    with torch.no_grad():
        return model(reader.collator(rows)).logit  # type: ignore[no-any-return]


def longest_page(reader: PageBatches) -> int:
    items = reader._rows(0)["items"]
    assert isinstance(items, Ragged)
    return int(items.lengths.argmax())


def test_a_score_does_not_change_when_page_mates_are_removed_reordered_or_replaced(
    model: CCN, reader: PageBatches
) -> None:
    at = longest_page(reader)
    all_of_it = page_with(reader, at, np.arange(4))
    base = scores(model, reader, all_of_it)
    for order in ([2], [2, 0], [3, 2, 1, 0]):
        found = scores(model, reader, page_with(reader, at, order))
        torch.testing.assert_close(found[order.index(2)], base[2])
    items = all_of_it["items"]
    assert isinstance(items, Ragged)
    replaced = {**all_of_it, "items": Ragged(np.where(np.arange(4) == 2, items.values, 1), items.offsets)}
    torch.testing.assert_close(scores(model, reader, replaced)[2], base[2])


def test_a_score_does_not_depend_on_labels_or_on_other_pages(model: CCN, reader: PageBatches) -> None:
    batch = reader[0, 0]
    together = model(batch).logit
    batch.click = None
    assert torch.equal(model(batch).logit, together)
    ends = batch.page_lengths.cumsum(0)
    for at in (0, 5):
        alone = scores(model, reader, {name: take(column, np.array([at])) for name, column in reader._rows(0).items()})
        torch.testing.assert_close(alone, together[ends[at] - batch.page_lengths[at] : ends[at]])


def test_a_score_depends_on_the_trigger_only_where_the_system_sees_it(reader: PageBatches) -> None:
    rows = reader._rows(0)
    other = {**rows, "trigger": (np.asarray(rows["trigger"]) % 60) + 1}
    model = TAN(reader.dataset, dim=8)
    assert not torch.allclose(scores(model, reader, rows), scores(model, reader, other))


def test_parts_of_tan_appear_and_vanish_with_their_switches(reader: PageBatches) -> None:
    def parts(**switches: Any) -> set[str]:
        return {name.split(".")[0] for name, _ in TAN(reader.dataset, dim=8, **switches).named_parameters()}

    assert parts() - parts(collaborative=False) == {"collaborative"}
    assert parts() - parts(trigger_interaction=False) == {"trigger_short", "trigger_long"}
    assert TAN(reader.dataset, dim=8, collaborative=False)(reader[0, 0]).degree is None


def test_the_lookup_kernel_changes_no_score(reader: PageBatches) -> None:
    bags, sequences = (TAN(reader.dataset, dim=8, item_kernel=kernel) for kernel in ("bag", "sequence"))
    state = {name.replace("embedding_bags", "embeddings"): value for name, value in bags.state_dict().items()}
    own = {name.replace("embedding_bags", "embeddings"): name for name in sequences.state_dict()}
    sequences.load_state_dict({own[name]: value for name, value in state.items()})
    torch.testing.assert_close(sequences(reader[0, 0]).logit, bags(reader[0, 0]).logit)


def test_losses_have_the_weights_of_eq_12(reader: PageBatches) -> None:
    batch, dataset = reader[0, 0], reader.dataset
    model = CCN(dataset, dim=8, contrast_weight=0.3)
    losses = model.auxiliary_losses(model(batch), batch)
    n1, n0 = dataset.clicked_per_page, dataset.unclicked_per_page
    ratio = 2 * n0 * n1 / (n0 * (n0 - 1) + n1 * (n1 - 1))
    assert {name: weight for name, (_, weight) in losses.items()} == pytest.approx(
        {"repulsion": 0.3, "attraction": 0.3 * ratio}
    )


@pytest.mark.parametrize(
    ("switches", "names"),
    [({"repulsion": False}, {"attraction"}), ({"attraction": False}, {"repulsion"})],
)
def test_each_loss_can_be_left_out(reader: PageBatches, switches: dict[str, bool], names: set[str]) -> None:
    model, batch = CCN(reader.dataset, dim=8, **switches), reader[0, 0]
    assert set(model.auxiliary_losses(model(batch), batch)) == names


def test_a_scale_that_lets_the_angle_leave_its_range_is_refused(reader: PageBatches) -> None:
    with pytest.raises(ValueError, match=r"scale xi"):
        CCN(reader.dataset, scale=0.5)
    with pytest.raises(ValueError, match="unbounded"):
        CCN(reader.dataset, bound="none")


def test_contrast_drives_the_degrees_of_clicked_and_unclicked_items_apart(reader: PageBatches) -> None:
    torch.manual_seed(0)
    model, batch = CCN(reader.dataset, dim=8), reader[0, 0]
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.05, initial_accumulator_value=1e-10)

    def gap() -> float:
        degree, clicked = model(batch).degree, batch.click == 1
        assert degree is not None
        return (degree[clicked].mean() - degree[~clicked].mean()).item()

    before = gap()
    for _ in range(60):
        optimizer.zero_grad()
        value, _ = model.auxiliary_losses(model(batch), batch)["repulsion"]
        value.backward()
        optimizer.step()
    assert gap() > before + 0.5


def test_scoring_never_calls_the_contrastive_losses(
    model: CCN, reader: PageBatches, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a loss was asked for")

    monkeypatch.setattr(ccn_file, "repulsion_loss", fail)
    monkeypatch.setattr(ccn_file, "attraction_loss", fail)
    batch: PageBatch = reader[0, 0]
    model(batch)
    with pytest.raises(AssertionError):
        model.auxiliary_losses(model(batch), batch)

"""Means over items: weighted, windowed, and unchanged by a resume."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_ccn.evaluation.item_means import DEGREES, ItemMeans, degree_sums

LOSS = ("loss",)


def alone(value: Tensor) -> Tensor:
    return value


def test_a_batch_counts_by_its_items() -> None:
    means = ItemMeans()
    means.add(LOSS, torch.tensor([1.0]), items=3)
    means.add(LOSS, torch.tensor([5.0]), items=1)
    means.add(LOSS, torch.tensor([9.0]), items=0)  # a slice without pages
    assert means.epoch(alone) == {"loss": 2.0}


def test_a_window_holds_what_came_since_the_last_one() -> None:
    means = ItemMeans()
    means.add(LOSS, torch.tensor([1.0]), items=2)
    assert means.window(alone) == {"loss": 1.0}
    means.add(LOSS, torch.tensor([4.0]), items=2)
    assert means.window(alone) == {"loss": 4.0}
    assert means.window(alone) == {}
    assert means.epoch(alone) == {"loss": 2.5}


def test_degrees_of_clicked_and_unclicked_items_are_separate() -> None:
    means = ItemMeans()
    means.add_sums(DEGREES, degree_sums(torch.tensor([0.9, 0.1, 0.3]), torch.tensor([1.0, 0.0, 0.0])))
    found = means.epoch(alone)
    assert abs(found["degree_clicked"] - 0.9) < 1e-7
    assert abs(found["degree_unclicked"] - 0.2) < 1e-7


def test_ranks_are_summed_when_a_mean_is_asked_for() -> None:
    means = ItemMeans()
    means.add(LOSS, torch.tensor([1.0]), items=1)
    other_rank = torch.tensor([[6.0], [2.0]], dtype=torch.float64)  # two items with a mean of 3
    assert means.epoch(lambda value: value + other_rank) == {"loss": 7.0 / 3}


def test_a_resumed_epoch_has_the_means_of_an_uninterrupted_one() -> None:
    whole, before, after = ItemMeans(), ItemMeans(), ItemMeans()
    for means in (whole, before):
        means.add(LOSS, torch.tensor([0.1]), items=3)
        means.window(alone)
        means.add(LOSS, torch.tensor([0.7]), items=5)
    after.load(before.state(alone))
    for means in (whole, after):
        means.add(LOSS, torch.tensor([0.3]), items=7)
    assert after.window(alone) == whole.window(alone)
    assert after.epoch(alone) == whole.epoch(alone)


def test_a_save_or_an_epoch_before_the_first_batch_after_a_resume_keeps_the_sums() -> None:
    before, ranks = ItemMeans(), (ItemMeans(), ItemMeans())
    before.add(LOSS, torch.tensor([0.5]), items=4)
    for means, share in zip(ranks, (1.0, 0.0), strict=True):
        means.load(before.state(alone), share)
    assert [means.state(alone) for means in ranks] == [before.state(alone)] * 2
    assert ranks[1].epoch(alone) == {"loss": 0.5}
    for means in ranks:
        means.add(LOSS, torch.tensor([2.0]), items=4)
    sums = [means.state(alone)["totals"]["loss"] for means in ranks]  # each rank's own, as nothing is exchanged here
    assert sums == [[10.0, 8.0], [8.0, 4.0]]


def test_sums_go_on_where_the_values_are_also_after_a_resume() -> None:
    means = ItemMeans()
    means.load({"totals": {"loss": [1.0, 2.0]}, "logged": {"loss": [1.0, 2.0]}})
    means.add(LOSS, torch.ones(1, device="meta"), items=3)  # as on a GPU: a CPU tensor would not go together
    devices = []

    def over_ranks(value: Tensor) -> Tensor:
        devices.append(value.device.type)
        return torch.zeros(2, 1)

    means.window(over_ranks)
    means.state(over_ranks)
    assert set(devices) == {"meta"}

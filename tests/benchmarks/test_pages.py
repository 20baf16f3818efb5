"""The pages of the benchmark: each feed carries the same instances."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from benchmarks.pages import Shape, feed, write
from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.models import DIN, SIM, TAN
from lightning_ccn.models.system import System

SHAPE = Shape(pages=12, items=3, short=4, long=12, users=50, catalogue=40, categories=4, sellers=7)
Instance = tuple[Any, ...]


def batches(folder: Path) -> list[PageBatch]:
    data = PageData(folder, batch_pages=4, short_length=SHAPE.short, long_length=SHAPE.found, workers=0)
    return list(data.train_dataloader())


def instances_of(batch: PageBatch) -> list[Instance]:
    """(user, target, its category and seller, trigger, short, long of its category, click) of each exposed item."""
    item = batch.feature_of_item("item")
    rows = torch.stack([batch.feature_of_item(name) for name in batch.item.keys()], 1).tolist()  # noqa: SIM118
    short = item[batch.short].split(batch.short_lengths.tolist())
    long = item[batch.long].split(batch.long_lengths.tolist())
    assert batch.clicks is not None
    return [
        (
            int(batch.user.values()[page]),
            tuple(rows[batch.target[n]]),
            int(item[batch.trigger[page]]),
            tuple(short[page].tolist()),
            tuple(long[batch.target_group[n]].tolist()),
            float(batch.clicks[n]),
        )
        for n, page in enumerate(batch.page.tolist())
    ]


@pytest.fixture(scope="module")
def page_major(tmp_path_factory: pytest.TempPathFactory) -> list[Instance]:
    folder = write(tmp_path_factory.mktemp("pages") / "pages", SHAPE)
    return [instance for batch in batches(folder) for instance in instances_of(batch)]


def test_instance_major_pages_carry_the_instances_of_the_pages(page_major: list[Instance], tmp_path: Path) -> None:
    alone = batches(write(tmp_path / "instances", SHAPE, instance_major=True))
    assert all(batch.items == batch.pages == 4 for batch in alone)
    assert Counter(instance for batch in alone for instance in instances_of(batch)) == Counter(page_major)
    assert len(page_major) == SHAPE.pages * SHAPE.items


def test_the_feed_of_the_peers_carries_the_instances_of_the_pages(page_major: list[Instance]) -> None:
    arrays = feed(SHAPE, batches=3, batch_pages=4)
    found = Counter(
        (int(user), int(target), int(arrays["category"][target]), tuple(short.tolist()), float(click))
        for user, target, short, click in zip(
            *(arrays[name] for name in ("user", "target", "short", "click")), strict=True
        )
    )
    names = ("item", "category", "seller")
    wanted = Counter(
        (user, target[0], target[names.index("category")], short, click)
        for user, target, _, short, _, click in page_major
    )
    assert found == wanted


def test_the_search_finds_equally_many_behaviours_for_every_target(page_major: list[Instance]) -> None:
    assert {len(long) for *_, long, _ in page_major} == {SHAPE.found} == {3}


def test_the_long_sequence_ends_with_the_short_one() -> None:
    arrays = feed(SHAPE, batches=1, batch_pages=4)
    assert np.array_equal(arrays["long"][:, -SHAPE.short :], arrays["short"])


@pytest.mark.parametrize("kind", [DIN, SIM, TAN])
def test_page_major_training_learns_what_instance_major_training_learns(kind: type[System], tmp_path: Path) -> None:
    learned: list[dict[str, torch.Tensor]] = []
    scored: list[dict[Instance, float]] = []
    for instance_major in (False, True):
        folder = write(tmp_path / str(instance_major), SHAPE, instance_major=instance_major)
        everything = SHAPE.pages * SHAPE.items
        data = PageData(
            folder, batch_pages=everything, short_length=SHAPE.short, long_length=SHAPE.found, lanes=1, workers=0
        )
        (batch,) = data.train_dataloader()
        assert batch.items == everything and batch.clicks is not None
        torch.manual_seed(0)
        system = kind(data.dataset, dim=4)
        optimizer = torch.optim.Adagrad(system.parameters(), 0.05, initial_accumulator_value=1e-3)
        for _ in range(10):
            optimizer.zero_grad()
            binary_cross_entropy_with_logits(system(batch).logit, batch.clicks).backward()
            optimizer.step()
        learned.append({name: p.detach() for name, p in system.named_parameters()})
        scored.append(dict(zip(instances_of(batch), system(batch).logit.tolist(), strict=True)))
    for name, value in learned[0].items():
        torch.testing.assert_close(learned[1][name], value, atol=1e-4, rtol=1e-3)
    assert scored[1] == pytest.approx(scored[0], abs=1e-3)  # so every metric is the same too

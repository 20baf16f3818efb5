"""The ids of the next batch are sent while this one is computed: the numbers stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torchrec import KeyedJaggedTensor

from lightning_ccn.sharding.strategy import TorchRecStrategy
from tests.sharding.dlrm import Batch, Loader
from tests.sharding.ranks import RankError
from tests.sharding.runs import fitted

STEPS = 6
LEARNT = 2  # the first batch that is begun after a training step has shown what is looked up
PLANS = {"row": "row_wise", "table": "table_wise"}


class Announcing:
    """Begins the exchange of each batch before it hands out the one before it."""

    def __init__(self, strategy: TorchRecStrategy, batches: Loader) -> None:
        self.strategy, self.batches = strategy, batches

    def __len__(self) -> int:
        return len(self.batches)

    def given(self, step: int, batch: Batch) -> None:
        """Called before the exchange of a batch begins."""

    def handed_out(self, step: int, batch: Batch) -> None:
        """Called before a batch is handed out: its ids were sent during the step before."""

    def __iter__(self) -> Iterator[Batch]:
        ahead: list[Batch] = []
        for step, batch in enumerate(self.batches):
            self.given(step, batch)
            self.strategy.begin_exchange(batch)
            if ahead:
                self.handed_out(step - 1, ahead[0])
                yield ahead.pop()
            ahead.append(batch)
        self.handed_out(len(self) - 1, ahead[0])
        yield ahead.pop()


class Erasing(Announcing):
    """Overwrites the ids that were sent, so that an exchange in the forward pass would send other ids."""

    def handed_out(self, step: int, batch: Batch) -> None:
        if step >= LEARNT:
            batch.item.values().zero_()
            batch.user.values().zero_()


class Wrong(Announcing):
    """Has an id that no table has."""

    def given(self, step: int, batch: Batch) -> None:
        if step == LEARNT:
            batch.item.values()[0] = 10_000


@pytest.mark.parametrize("kernel", ["sequence", "bag"])
@pytest.mark.parametrize("plan", PLANS)
def test_the_numbers_are_those_of_a_run_that_does_not_exchange_ahead(tmp_path: Path, plan: str, kernel: str) -> None:
    settings: dict[str, Any] = {"steps": STEPS, "model": {"on_meta": False, "item_kernel": kernel}}
    placed = {"plan": dict.fromkeys(("city", "tag", "item"), PLANS[plan])}
    usual = fitted(2, tmp_path / "usual", strategy=placed, **settings)
    ahead = fitted(2, tmp_path / "ahead", strategy=placed | {"exchange_ahead": True}, loader=Announcing, **settings)
    assert ahead.losses == usual.losses
    for key, value in usual.state.items():
        assert torch.equal(ahead.state[key], value), key


def test_what_is_looked_up_is_what_was_sent_ahead(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": STEPS, "model": {"on_meta": False}}
    usual = fitted(2, tmp_path / "usual", **settings)
    sent = fitted(2, tmp_path / "sent", strategy={"exchange_ahead": True}, loader=Erasing, **settings)
    assert sent.losses == usual.losses


class Another(Announcing):
    """Hands out a copy of a batch, with ids of its own."""

    def handed_out(self, step: int, batch: Batch) -> None:
        if step == LEARNT:
            batch.item = KeyedJaggedTensor(batch.item.keys(), batch.item.values().clone(), batch.item.lengths())


def test_a_batch_whose_ids_are_not_those_that_were_sent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RankError, match="looks up other ids than those of its batch that were sent ahead"):
        fitted(2, tmp_path, steps=STEPS, strategy={"exchange_ahead": True}, loader=Another)


def test_an_id_outside_of_its_table_is_named_before_it_is_sent(tmp_path: Path) -> None:
    with pytest.raises(RankError, match=r"feature 'target' has the id 10000 .* and its table 'item' has rows 0 to 100"):
        fitted(2, tmp_path, steps=STEPS, strategy={"exchange_ahead": True}, loader=Wrong)


@pytest.mark.parametrize(
    ("option", "device", "ranks", "expected"),
    [
        (None, "cuda", 2, True),
        (None, "cuda", 1, False),  # there is nobody to send ids to
        (None, "cpu", 2, False),
        (True, "cpu", 2, True),
        (True, "cuda", 1, False),
        (False, "cuda", 2, False),
    ],
)
def test_it_is_on_by_default_on_several_gpus(
    monkeypatch: pytest.MonkeyPatch, option: bool | None, device: str, ranks: int, expected: bool
) -> None:
    monkeypatch.setattr(TorchRecStrategy, "root_device", torch.device(device))
    monkeypatch.setattr(TorchRecStrategy, "world_size", ranks)
    assert TorchRecStrategy(exchange_ahead=option).exchanges_ahead == expected

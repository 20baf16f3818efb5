"""Freezing by name: what is named stays, what nothing has is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.models import SIM, TAN
from lightning_ccn.nn.freezing import freeze
from lightning_ccn.nn.order_head import OrderHead, order_loss


@pytest.mark.parametrize("kernel", ["bag", "sequence"])
def test_a_frozen_table_gets_no_gradient_and_the_others_do(dataset: Path, kernel: str) -> None:
    reader = PageBatches(Dataset.open(dataset), "test", batch_pages=24, short_length=5, long_length=4)
    model = TAN(reader.dataset, dim=8, item_kernel=kernel)  # type: ignore[arg-type]
    freeze(model, ["item", "user", "head"])
    model(reader[0, 0]).logit.sum().backward()
    moved = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not {name for name in moved if name.startswith("head.") or ".item." in name or ".user." in name}
    assert {name.split(".")[-2] for name in moved if "collection" in name} == {
        "category",
        "tag",
        "seller",
        "city",
        "user_category",
    }


def test_a_name_that_nothing_has_is_refused_with_those_that_there_are(dataset: Path) -> None:
    known = "tables: category.*layers: collaborative, embedding, head"
    with pytest.raises(ValueError, match=f"no table or layer is named 'usr'; {known}"):
        freeze(TAN(Dataset.open(dataset), dim=8), ["usr"])


def test_freezing_every_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="every layer is frozen"):
        freeze(torch.nn.Sequential(torch.nn.Linear(2, 2)), ["0"])


def test_the_order_head_is_frozen_by_name_and_alone_is_enough_to_train(dataset: Path) -> None:
    reader = PageBatches(Dataset.open(dataset), "test", batch_pages=24, short_length=5, long_length=4)
    for frozen in ("order_head", "system"):
        model = SIM(reader.dataset, dim=8)
        head = OrderHead(model)
        tables = ("item", "user", "category", "tag", "seller", "city", "user_category")
        layers = dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters())
        freeze(model, ["order_head"] if frozen == "order_head" else [*tables, *layers], head)
        click = model(reader[0, 0]).logit
        order_loss(click, head.conversion(), torch.zeros_like(click)).backward()
        moved = [{p.grad is not None for p in part.parameters()} for part in (model, head)]
        assert moved == ([{True}, {False}] if frozen == "order_head" else [{False}, {True}])
    with pytest.raises(ValueError, match="no table or layer is named 'order_head'"):
        freeze(SIM(reader.dataset, dim=8), ["order_head"])

"""Freezing by name: what is named stays, what nothing has is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.reader import PageBatches
from lightning_ccn.models import TAN
from lightning_ccn.nn.freezing import freeze


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

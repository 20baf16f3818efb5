"""A step that is taken apart is the same step."""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.optim import SGD, Optimizer

from benchmarks import bare
from benchmarks.breakdown import dense_work, parts_of
from benchmarks.pages import Shape, write
from lightning_ccn.data.datamodule import PageData
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.models import CCN, DIN
from lightning_ccn.models.system import System

SHAPE = Shape(pages=20, items=3, short=4, long=12, users=50, catalogue=40, categories=4, sellers=7)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> PageData:
    folder = write(tmp_path_factory.mktemp("pages") / "pages", SHAPE)
    return PageData(folder, batch_pages=5, short_length=4, long_length=3, workers=0)


def optimizer_of(system: System) -> Optimizer:
    return SGD([p for name, p in system.named_parameters() if not name.startswith("embedding.")], lr=0.1)


@pytest.mark.parametrize("kind", [DIN, CCN])
def test_a_step_in_parts_trains_as_a_whole_one(data: PageData, kind: type[DIN | CCN]) -> None:
    torch.manual_seed(0)
    whole = kind(data.dataset, dim=4)
    taken_apart, batches = deepcopy(whole), list(data.train_dataloader())
    bare.steps(whole, optimizer_of(whole), bare.copies(batches, 3))
    parts = parts_of(taken_apart, optimizer_of(taken_apart), bare.copies(batches, 3), time.perf_counter)
    others = dict(taken_apart.named_parameters())
    for name, parameter in whole.named_parameters():
        assert parameter.grad is not None and others[name].grad is not None, name
        torch.testing.assert_close(others[name], parameter)
        torch.testing.assert_close(others[name].grad, parameter.grad)
    expected = {"lookup", "attention", "head", "losses", "backward", "table update", "dense update"}
    expected |= {"rest of the forward pass"} | ({"collaborative module"} if kind is CCN else set())
    assert parts.keys() == expected
    assert all(seconds >= 0 for seconds in parts.values())


def test_the_work_of_the_dense_part_leaves_out_the_tables(data: PageData, tmp_path: Path) -> None:
    batch, *_ = data.train_dataloader()
    found = dense_work(DIN(data.dataset, dim=4), batch)
    vectors = batch.pages * 4 + batch.item.stride() * 12  # of users and distinct items
    assert found["table_bytes"] == 6 * 4 * vectors
    assert found["flops"] > 0
    larger = Dataset.open(write(tmp_path / "larger", replace(SHAPE, users=100_000)))
    assert dense_work(DIN(larger, dim=4), batch)["bytes"] == pytest.approx(found["bytes"], rel=0.01)


def test_copies_of_a_batch_have_forgotten_what_was_worked_out_of_it(data: PageData) -> None:
    batch, *_ = data.train_dataloader()
    assert batch.short_of_page is batch.short_of_page  # is kept
    copied = bare.copies([batch], 2)
    assert all("short_of_page" not in vars(copy) for copy in copied)
    assert all(torch.equal(a, b) for copy in copied for a, b in zip(copy.tensors(), batch.tensors(), strict=True))

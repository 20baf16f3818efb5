"""A `PageBatch` on its way to another device, and what it knows of its lengths."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.ragged import take
from lightning_ccn.data.reader import PageBatches

CPU, META = torch.device("cpu"), torch.device("meta")


@pytest.fixture(scope="module", params=["pages", "placeholder"])
def batch(dataset: Path, request: pytest.FixtureRequest) -> PageBatch:
    pages = PageBatches(Dataset.open(dataset), "test", batch_pages=24, short_length=5, long_length=4, with_gaps=True)
    if request.param == "pages":
        return pages[0, 0]
    nothing = np.zeros(0, np.int64)
    return pages.collator({name: take(column, nothing) for name, column in pages.row_group(0).items()})


def test_a_packed_batch_is_the_same_again(batch: PageBatch) -> None:
    again = batch.packed().to(CPU)
    for found, expected in zip(again.tensors(), batch.tensors(), strict=True):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    assert (again.longest_short, again.longest_long, again.of_page.longest) == (
        batch.longest_short,
        batch.longest_long,
        batch.of_page.longest,
    )


def test_a_packed_batch_goes_to_another_device_in_one_copy(batch: PageBatch) -> None:
    copies, to = [], Tensor.to

    def counted(tensor: Tensor, *args: object, **kwargs: object) -> Tensor:
        if META in args:
            copies.append(tensor)
        return to(tensor, *args, **kwargs)  # type: ignore[call-overload]

    with patch.object(Tensor, "to", counted):
        there = batch.packed().to(META, non_blocking=True)
        assert len(copies) == 1
        assert there.to(META) is there
        assert len(copies) == 1
    assert {tensor.device for tensor in there.tensors()} == {META}
    assert [(t.shape, t.dtype) for t in there.tensors()] == [(t.shape, t.dtype) for t in batch.tensors()]


def test_a_packed_batch_has_half_of_the_bytes(batch: PageBatch) -> None:
    whole = sum(tensor.nbytes for tensor in batch.tensors() if tensor.dtype == torch.int64)
    assert batch.packed().tensors.buffer.nbytes < 0.6 * whole + 4 * batch.items * batch.numbers.shape[1] + 100


def test_a_stream_that_uses_a_batch_is_noted_for_all_of_its_memory(batch: PageBatch) -> None:
    noted = []
    with patch.object(
        Tensor, "record_stream", lambda tensor, stream: noted.append(tensor.untyped_storage().data_ptr())
    ):
        there = batch.packed().to(CPU)
        there.record_stream("training")  # type: ignore[arg-type]
        assert {t.untyped_storage().data_ptr() for t in there.tensors() if t.numel()} <= set(noted)
        noted.clear()
        batch.record_stream("training")  # type: ignore[arg-type]
        assert noted == [t.untyped_storage().data_ptr() for t in batch.tensors()]


def test_a_batch_that_is_not_packed_is_copied_tensor_by_tensor(batch: PageBatch) -> None:
    there = batch.to(META)
    assert {tensor.device for tensor in there.tensors()} == {META}
    assert (there.pages, there.items, there.longest_long) == (batch.pages, batch.items, batch.longest_long)


def test_what_the_reader_knows_agrees_with_the_lengths(batch: PageBatch) -> None:
    assert torch.equal(batch.page, torch.repeat_interleave(batch.page_lengths))
    assert batch.of_page.longest == max(int(batch.page_lengths.max()), 1)
    assert batch.longest_short == max(int(batch.short_lengths.max()), 1)
    assert batch.longest_long == max([*batch.long_lengths.tolist(), 1])
    rows = torch.arange(batch.items)[:, None] + 1
    padded = batch.of_page.pad(rows)  # [pages, longest, 1]
    assert torch.equal(batch.of_page.unpad(padded), rows)
    for page, own in enumerate(padded.squeeze(2)):
        assert own[own > 0].tolist() == (torch.nonzero(batch.page == page)[:, 0] + 1).tolist()


def test_keys_know_their_lengths_without_a_look_at_the_tensors(batch: PageBatch) -> None:
    there = batch.packed().to(META)  # where there is nothing to look at
    for found, expected in ((there.user, batch.user), (there.item, batch.item)):
        assert found.length_per_key() == [len(expected[name].values()) for name in expected.keys()]  # noqa: SIM118
        assert found.stride() == expected.stride()

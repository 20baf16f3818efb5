"""Tensors in one buffer come out as they went in, whatever their numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lightning_ccn.data.packing import pack

EDGE = 2**31


@pytest.mark.parametrize(
    ("tensor", "nbytes"),
    [
        (torch.tensor([EDGE - 1, -EDGE]), 8),
        (torch.tensor([EDGE, 0]), 64),
        (torch.tensor([-EDGE - 1, 0]), 64),
        (torch.tensor([1, 2, 3]), 16),  # and half a word
        (torch.empty(0, dtype=torch.int64), 0),
        (torch.zeros(3, 0), 0),
        (torch.arange(6).view(2, 3), 24),
        (torch.tensor([True, False, True]), 64),
        (torch.tensor([[0.5], [torch.nan]]), 64),
        (torch.arange(5, dtype=torch.float16), 64),
        (torch.tensor(7), 8),
    ],
)
def test_a_tensor_comes_out_as_it_went_in(tensor: Tensor, nbytes: int) -> None:
    packed = pack([tensor])
    assert packed.buffer.nbytes == nbytes
    (found,), storages = packed.unpack()
    assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
    assert torch.equal(found.nan_to_num(-9), tensor.nan_to_num(-9))
    assert found.untyped_storage().data_ptr() in {storage.untyped_storage().data_ptr() for storage in storages}


def test_many_tensors_come_out_in_their_order() -> None:
    draw = torch.Generator().manual_seed(1)
    given = []
    for at in range(40):
        rows = int(torch.randint(0, 9, (1,), generator=draw))
        whole = torch.randint(0, 2 ** (20 if at % 3 else 50), (rows,), generator=draw)
        given.append(torch.rand(rows, 3, generator=draw) if at % 4 == 0 else whole)
    found, _ = pack(given).unpack()
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(found, given, strict=True))


def test_floats_are_aligned_as_pytorchs_own() -> None:
    given = [torch.rand(rows) for rows in (1, 3, 16, 17)] + [torch.tensor([EDGE]), torch.rand(2, 5)]
    for tensor in pack(given).unpack()[0]:
        assert tensor.data_ptr() % 64 == 0


def test_nothing_can_be_packed() -> None:
    assert pack([]).unpack()[0] == []

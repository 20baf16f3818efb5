"""The hash must never change, since the rows of tables in checkpoints depend on it."""

from __future__ import annotations

import numpy as np
import torch

from lightning_ccn.data.splitmix64 import splitmix64

VALUES = [0, 1, 2, 1 << 40, 123456789, 2**63 - 1, -1, -(2**63)]
KNOWN = {
    0: 0,
    1: 0x5692161D100B05E5,
    2: 0xDBD238973A2B148A,
    1 << 40: 0x00AB4DAF7C2673F8,
    -1: 0xB4D055FCF2CBBD7B,
}


def in_python(value: int) -> int:
    """The finaliser on Python's integers."""
    value %= 2**64
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
    return value ^ (value >> 31)


def test_numpy_and_torch_give_the_known_values() -> None:
    expected = [in_python(value) for value in VALUES]
    assert {value: in_python(value) for value in KNOWN} == KNOWN
    assert splitmix64(np.array(VALUES)).view(np.uint64).tolist() == expected
    assert [value % 2**64 for value in splitmix64(torch.tensor(VALUES)).tolist()] == expected


def test_any_shape_is_kept_and_the_argument_is_not_changed() -> None:
    values = np.arange(6).reshape(2, 3)
    hashed = splitmix64(values)
    assert hashed.shape == (2, 3)
    assert hashed.dtype == np.int64
    np.testing.assert_array_equal(hashed.ravel(), splitmix64(np.arange(6)))
    np.testing.assert_array_equal(values, np.arange(6).reshape(2, 3))

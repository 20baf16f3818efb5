"""Padded forms of ragged tensors."""

from __future__ import annotations

import torch

from lightning_ccn.data.padding import Places
from tests.segments import behaviours_of, places_of


def test_rows_go_to_their_places_and_come_back() -> None:
    rows = torch.randn(5, 3)
    places = places_of([2, 0, 2, 1, 0], segments=4)
    padded = places.pad(rows)
    assert padded.shape == (4, 2, 3)
    torch.testing.assert_close(padded[:, 0], torch.stack([rows[1], rows[3], rows[0], torch.zeros(3)]))
    torch.testing.assert_close(padded[:, 1], torch.stack([rows[4], torch.zeros(3), rows[2], torch.zeros(3)]))
    assert torch.equal(places.unpad(padded), rows)
    assert places.rows == 5


def test_one_row_a_segment_is_its_own_padded_form() -> None:
    rows, places = torch.randn(4, 3), Places(None, 4, 1)
    assert torch.equal(places.pad(rows), rows[:, None])
    assert torch.equal(places.unpad(rows[:, None]), rows)
    assert places.rows == 4


def test_behaviours_are_padded_at_their_end_and_empty_segments_may_be_looked_at() -> None:
    padded = behaviours_of([[7, 8], [], [9]])
    assert padded.index[padded.seen].tolist() == [7, 8, 9]
    assert padded.seen.tolist() == [[True, True], [False, False], [True, False]]
    assert padded.filled.flatten().tolist() == [True, False, True]
    assert padded.bias.isneginf().squeeze().tolist() == [[False, False], [False, False], [False, True]]
    assert set(padded.index.flatten().tolist()) <= {7, 8, 9}  # also where there is none: a lookup must not fail


def test_segments_may_be_chosen_and_repeated() -> None:
    padded = behaviours_of([[1, 2, 3], [], [4], [5]], gaps=[[10, 20, 30], [], [40], [50]]).of(
        torch.tensor([2, 0, 2, 1])
    )
    assert [index[seen].tolist() for index, seen in zip(padded.index, padded.seen, strict=True)] == [
        [4],
        [1, 2, 3],
        [4],
        [],
    ]
    assert padded.filled.flatten().tolist() == [True, True, True, False]
    assert padded.bias.isneginf().sum((1, 2)).tolist() == [2, 0, 2, 0]
    assert padded.gap is not None
    assert padded.gap[padded.seen].tolist() == [40, 10, 20, 30, 40]


def test_no_behaviours_at_all_leave_an_index_that_can_be_looked_up() -> None:
    padded = behaviours_of([[], []])
    assert padded.index.tolist() == [[0], [0]]
    assert not padded.seen.any()

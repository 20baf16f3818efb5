"""`IdLookup`: the log's ids to rows, for every kind of table."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lightning_ccn.data.splitmix64 import hash_rows
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.serving.errors import RequestError
from lightning_ccn.serving.id_lookup import IdLookup, hash_integers, hash_texts, index_of


def of_integers(ids: np.ndarray) -> IdLookup:
    return IdLookup("item", len(ids) + 1, "integer", index_of(hash_integers(ids)))


def of_texts(ids: list[str]) -> IdLookup:
    halves = hash_texts(ids)
    return IdLookup("item", len(ids) + 1, "text", index_of(halves[:, 0], halves[:, 1]))


def test_integers_have_the_rows_of_their_vocabulary() -> None:
    rng = np.random.default_rng(0)
    ids = np.unique(rng.integers(-(2**63), 2**63, 20_000))
    rng.shuffle(ids)
    vocabulary = Vocabulary()
    vocabulary.extend(ids)
    asked = np.concatenate([ids[:5000], rng.integers(-(2**63), 2**63, 5000), [-(2**63), 2**63 - 1, 0]])
    np.testing.assert_array_equal(of_integers(ids)(asked, "items"), vocabulary.encode(asked))


def test_texts_have_the_rows_of_their_vocabulary() -> None:
    ids = ["", "a", "ä", "b" * 5000, "日本", *(f"sku-{at}" for at in range(3000))]
    asked = [*ids[::-1], "c", "A", " a", None, "\ud800"]
    expected = [*range(len(ids), 0, -1), 0, 0, 0, 0, 0]
    assert of_texts(ids)(asked, "items").tolist() == expected


@pytest.mark.parametrize("ids", [np.zeros(0, np.int64), np.array([5])])
def test_a_table_of_no_id_or_one_is_looked_up(ids: np.ndarray) -> None:
    assert of_integers(ids)([5, 6], "items").tolist() == [len(ids), 0]


def test_texts_whose_first_half_is_alike_are_told_apart() -> None:
    lookup = of_texts(["a", "b"])
    arrays = {**lookup.arrays, "hash": np.repeat(lookup.arrays["hash"][:1], 2)}  # as if both had one hash
    start = np.searchsorted(arrays["hash"] >> np.uint64(62), np.arange(5)).astype(np.uint32)
    alike = IdLookup("item", 3, "text", {**arrays, "start": start})
    first = int(arrays["row"][0])
    asked = ["a", "b"][first - 1]
    assert alike([asked], "items").tolist() == [first]


def test_hashed_tables_have_the_rows_that_the_builder_gives() -> None:
    lookup = IdLookup("user", 1000, "any", {})
    first = np.frombuffer(hashlib.blake2b(b"ann", digest_size=8).digest(), "<i8")
    expected = [*hash_rows(np.array([7, -3]), 1000).tolist(), 0, *hash_rows(first, 1000).tolist()]
    assert lookup([7, -3, None, "ann"], "user").tolist() == expected


def test_without_a_vocabulary_ids_are_rows() -> None:
    lookup = IdLookup("city", 10, "row", {})
    assert lookup([0, 9, 10, -1, None], "user.city").tolist() == [0, 9, 0, 0, 0]


def test_an_id_of_another_type_is_refused() -> None:
    with pytest.raises(RequestError, match=r"items\[1\]: 5 is not text, as the ids of table 'item' are"):
        of_texts(["a"])(["a", 5], "items")
    with pytest.raises(RequestError, match=r"items\[0\]: 1.5 is not an integer"):
        of_integers(np.array([1]))([1.5], "items")

"""From original ids to table rows."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.splitmix64 import hash_rows
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError


def vocabulary(*ids: object) -> Vocabulary:
    made = Vocabulary()
    made.extend(pa.array(ids))
    return made


def test_rows_follow_first_appearance_and_unknown_ids_are_row_0() -> None:
    made = vocabulary(70, 30, 70, 50)
    assert made.encode(np.array([50, 70, 99, 30])).tolist() == [3, 1, 0, 2]
    assert len(made) == 4


def test_extending_keeps_every_old_row_and_appends_only_new_ids() -> None:
    old = np.random.default_rng(0).permutation(1000)
    made = vocabulary(*old)
    before = made.encode(old)
    made.extend(np.concatenate([old[::-1], [5000, 4000, 5000]]))
    np.testing.assert_array_equal(made.encode(old), before)
    assert made.encode(np.array([5000, 4000])).tolist() == [1001, 1002]


def test_nulls_are_unknown_and_never_become_a_row() -> None:
    made = vocabulary(7, None, 8)
    made.extend(pa.array([None, 9]))
    assert len(made) == 4
    assert made.encode(pa.array([None, 9, None])).tolist() == [0, 3, 0]


def test_strings_are_ids_too() -> None:
    made = vocabulary("b", "a", "ä")
    assert made.encode(pa.array(["ä", "a", "A", None])).tolist() == [3, 2, 0, 0]


@pytest.mark.parametrize("nothing", [np.array([]), pa.array([None, None]), pa.array([], pa.string())])
def test_a_batch_without_ids_leaves_the_type_of_the_ids_open(nothing: np.ndarray | pa.Array) -> None:
    made = Vocabulary()
    made.extend(nothing)
    made.extend(np.array([7]))
    assert made.ids.type == pa.int64()
    assert made.encode(np.array([7])).tolist() == [1]


def test_an_empty_vocabulary_knows_no_id() -> None:
    assert Vocabulary().encode(pa.array(["a", None])).tolist() == [0, 0]
    assert len(Vocabulary()) == 1


def test_ids_of_another_type_are_rejected_with_an_explanation() -> None:
    with pytest.raises(DataError, match=r"ids of type string do not fit a vocabulary of int64 .*same type"):
        vocabulary(1, 2).extend(pa.array(["a"]))
    with pytest.raises(DataError, match="ids of type string do not fit a vocabulary of int64"):
        vocabulary(1, 2).encode(pa.array(["a"]))


def test_digest_of_the_first_rows_is_the_older_vocabularys_digest() -> None:
    old, new = vocabulary(3, 1, 2), vocabulary(3, 1, 2)
    new.extend(np.array([9, 8]))
    assert new.digest(rows=len(old)) == old.digest() != new.digest()
    assert new.digest(rows=len(new)) == new.digest()
    assert new.digest(rows=1) == Vocabulary().digest()


def test_digest_tells_order_and_boundaries_of_ids_apart_but_not_their_type() -> None:
    assert vocabulary(1, 2).digest() != vocabulary(2, 1).digest()
    assert vocabulary(1, 23).digest() != vocabulary(12, 3).digest()
    assert vocabulary("x\ny").digest() != vocabulary("x", "y").digest()
    assert vocabulary(1, 2).digest() == vocabulary("1", "2").digest()


def test_digest_stays_the_same_from_version_to_version() -> None:
    # checkpoints keep digests: changing this value makes every older checkpoint mismatch
    assert vocabulary(70, 301).digest() == hashlib.sha256(b"2:703:301").hexdigest()


@pytest.mark.parametrize("ids", [(5, 4), ("b", "a"), ()])
def test_saving_and_loading_keeps_rows(tmp_path: Path, ids: tuple[object, ...]) -> None:
    made = vocabulary(*ids) if ids else Vocabulary()
    made.save(tmp_path / "deep" / "item.parquet")
    loaded = Vocabulary.load(tmp_path / "deep" / "item.parquet")
    assert loaded.ids.equals(made.ids)
    loaded.extend(pa.array(["c", "b"]) if ids == ("b", "a") else pa.array([6, 5]))
    assert loaded.digest(rows=len(made)) == made.digest()


def test_loading_rejects_files_that_are_no_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "item.parquet"
    with pytest.raises(DataError, match=r"item\.parquet: cannot be read as a vocabulary"):
        Vocabulary.load(path)
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match=r"item\.parquet: cannot be read as a vocabulary"):
        Vocabulary.load(path)
    pq.write_table(pa.table({"id": [[1], [2]]}), path)
    with pytest.raises(DataError, match=r"column id: the type is list.*; write the original ids as int64 or string"):
        Vocabulary.load(path)
    pq.write_table(pa.table({"id": [1.5, 2.5]}), path)
    with pytest.raises(DataError, match=r"column id: the type is double; write the original ids as int64 or string"):
        Vocabulary.load(path)
    (tmp_path / "user.parquet").mkdir()
    with pytest.raises(DataError, match=r"user\.parquet: is a folder, as Spark writes; order it by row"):
        Vocabulary.load(tmp_path / "user.parquet")
    pq.write_table(pa.table({"ids": [1, 2]}), path)
    with pytest.raises(DataError, match=r"item\.parquet: cannot be read as a vocabulary \(one column `id`\)"):
        Vocabulary.load(path)
    for bad in ([1, 2, 1], [1, None]):
        pq.write_table(pa.table({"id": bad}), path)
        with pytest.raises(DataError, match=r"item\.parquet: column id: an id is repeated or null"):
            Vocabulary.load(path)


def test_hash_rows_are_splitmix64_and_stay_so() -> None:
    def row(value: int, rows: int) -> int:  # in Python's integers, which know no width
        value &= 2**64 - 1
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) % 2**64
        return 1 + (value ^ (value >> 31)) % (rows - 1)

    ids = [0, 1, 2, 12345, -1, 2**62, -(2**63)]
    for rows in (2, 1000, 61_585_143):
        assert hash_rows(np.array(ids), rows).tolist() == [row(value, rows) for value in ids]
    # pinned: a table trained with other rows would be read wrongly
    assert hash_rows(np.array(ids[:4]), 1000).tolist() == [1, 374, 590, 211]


def test_hash_rows_do_not_depend_on_the_width_of_the_ids() -> None:
    ids = np.array([1, 77, 30_000, -5], dtype=np.int16)
    np.testing.assert_array_equal(hash_rows(ids, 999), hash_rows(ids.astype(np.int64), 999))


def test_hash_rows_spread_neighbouring_ids_evenly_and_spare_row_0() -> None:
    rows = hash_rows(np.arange(200_000), 101)
    count = np.bincount(rows, minlength=101)
    assert count[0] == 0
    # 2,000 expected in each of 100 rows: chi-square has 99 degrees of freedom, 160 is its 0.9999 quantile
    assert np.square(count[1:] - 2000).sum() / 2000 < 160

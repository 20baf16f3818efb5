"""Decoding of row groups, and types of columns."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.columns import Column, page_columns
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import RESERVED
from lightning_ccn.data.parquet import NULL, decode, open_part
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.errors import DataError


def write(path: Path, table: pa.Table, row_group_size: int = 1000) -> Path:
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("integer", [pa.int8(), pa.int32(), pa.int64()])
@pytest.mark.parametrize("list_of", [pa.list_, pa.large_list])
def test_every_integer_and_list_type_decodes_to_the_same_rows(
    tmp_path: Path, integer: pa.DataType, list_of: Callable[[pa.DataType], pa.DataType]
) -> None:
    table = pa.table({"a": pa.array([5, 6, 7], integer), "b": pa.array([[1, 2], [], [3]], list_of(integer))})
    with open_part(write(tmp_path / "p.parquet", table)) as file:
        rows = decode(file, 0, ["b", "a"])
    assert list(rows) == ["b", "a"]
    assert isinstance(rows["b"], Ragged)
    assert rows["a"].tolist() == [5, 6, 7]  # type: ignore[union-attr]
    assert rows["b"].values.tolist() == [1, 2, 3]
    assert rows["b"].offsets.tolist() == [0, 2, 2, 3]
    assert rows["b"].values.dtype == integer.to_pandas_dtype()


def test_chunks_slices_and_row_groups_leave_no_trace(tmp_path: Path) -> None:
    whole = pa.table({"a": range(10), "b": pa.array([[i] * (i % 4) for i in range(10)])})
    pieces = pa.concat_tables([whole.slice(3, 4), whole.slice(1, 2), whole.slice(7)])
    path = write(tmp_path / "p.parquet", pieces, row_group_size=5)
    expected = [3, 4, 5, 6, 1, 2, 7, 8, 9]
    found: list[int] = []
    with open_part(path) as file:
        for group in range(file.num_row_groups):
            rows = decode(file, group, ["a", "b"])
            assert isinstance(rows["a"], np.ndarray)
            assert isinstance(rows["b"], Ragged)
            found += rows["a"].tolist()
            assert rows["b"].lengths.tolist() == [i % 4 for i in rows["a"]]
            assert rows["b"].values.tolist() == [i for i in rows["a"] for _ in range(i % 4)]
    assert found == expected


def test_null_lists_are_empty_null_floats_nan_and_null_integers_marked(tmp_path: Path) -> None:
    table = pa.table(
        {
            "a": pa.array([1, None], pa.int32()),
            "b": pa.array([None, [4, None]], pa.list_(pa.int8())),
            "x": pa.array([[0.5, None], None], pa.list_(pa.float32())),
        }
    )
    with open_part(write(tmp_path / "p.parquet", table)) as file:
        rows = decode(file, 0, ["a", "b", "x"])
    assert rows["a"].tolist() == [1, NULL]  # type: ignore[union-attr]
    assert isinstance(rows["b"], Ragged)
    assert isinstance(rows["x"], Ragged)
    assert (rows["b"].values.tolist(), rows["b"].lengths.tolist()) == ([4, NULL], [0, 2])
    np.testing.assert_array_equal(rows["x"].values, [0.5, np.nan])
    assert rows["x"].lengths.tolist() == [2, 0]


@pytest.mark.parametrize("damage", ["truncated", "empty", "corrupt page", "text", "missing"])
def test_an_incomplete_file_is_named(tmp_path: Path, damage: str) -> None:
    path = write(tmp_path / "p.parquet", pa.table({"a": np.random.default_rng(0).integers(0, 2**60, 5000)}))
    whole = path.read_bytes()
    contents = {
        "truncated": whole[:-100],
        "empty": b"",
        "corrupt page": whole[:4] + bytes(1000) + whole[1004:],
        "text": b"id,time\n" * 10,
    }
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(contents[damage])
    with (
        pytest.raises(DataError, match=r"p\.parquet: not a complete Parquet file; write it") as error,
        open_part(path) as file,
    ):
        decode(file, 0, ["a"])
    assert "\n" not in str(error.value)


def test_types_that_do_not_fit_are_reported_with_the_type_to_write() -> None:
    ids, time = Column("items", "id", many=True, table="item"), Column("time", "time")
    price, times = Column("price", "number", many=True), Column("short_times", "time", many=True)
    assert ids.type_problem(pa.list_(pa.int32())) is None
    assert price.type_problem(pa.list_(pa.float64())) is None
    assert price.type_problem(pa.list_(pa.int16())) is None
    assert ids.type_problem(pa.int64()) == "the type is int64; cast it to list<int64>"
    assert time.type_problem(pa.list_(pa.int64())) == "the type is list<item: int64>; cast it to int64"
    assert ids.type_problem(pa.list_(pa.string())) == "the type is list<item: string>; cast it to list<int64>"
    assert price.type_problem(pa.list_(pa.decimal128(9, 2))) is not None
    assert ids.type_problem(pa.list_(pa.uint64())) is not None
    assert Column("clicks", "binary", many=True).type_problem(pa.list_(pa.bool_())) is not None
    for column, stored in ((time, pa.timestamp("us")), (times, pa.list_(pa.timestamp("ms"))), (time, pa.date32())):
        problem = column.type_problem(stored)
        assert problem is not None
        assert problem.endswith(f"cast it to {column.expected_type}, whole seconds since 1970 (Spark: unix_timestamp)")


def test_every_reserved_column_and_feature_is_described_once(dataset: Path) -> None:
    schema = Dataset.open(dataset).schema
    names = [column.name for column in page_columns(schema)]
    assert len(names) == len(set(names))
    assert set(names) == RESERVED | {"user", "city", "interests", "price"}

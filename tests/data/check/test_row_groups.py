"""Row groups that cost a reader more than they need."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check import row_groups
from lightning_ccn.data.check.check import check
from lightning_ccn.data.check.row_groups import (
    FEW_GROUPS,
    FEWEST_PAGES,
    LANES,
    MOST_GROUPS,
    MOST_GROUPS_ONCE,
    MOST_OPEN,
    RowGroups,
)
from lightning_ccn.data.schema import Feature, Schema, Table

SCHEMA = Schema(tables={"item": Table(9), "user": Table(9)}, user=(Feature("user", "user"),))
REMEDY = "(pyarrow: row_group_size; Spark: parquet.block.size, or repartition for other parts)"


def warnings(folder: Path, table: pa.Table, row_group_size: int, parts: int = 1) -> list[str]:
    """What is said of a split of equal parts."""
    found = RowGroups(SCHEMA)
    for number in range(parts):
        path = folder / f"{number}.parquet"
        pq.write_table(table, path, row_group_size=row_group_size)
        found.add("train", path, pq.read_metadata(path))
    return list(found.warnings(folder))


def users(pages: int) -> pa.Table:
    return pa.table({"user": [1] * pages})


def test_many_small_row_groups_are_too_many(tmp_path: Path) -> None:
    pages = FEW_GROUPS * 10
    assert warnings(tmp_path, users(pages // 2), 10, parts=2) == [
        f"{tmp_path}/train: {FEW_GROUPS} row groups of 10.0 pages on average; however small one is, to read it takes a "
        f"time of its own: write {FEWEST_PAGES} pages or more, such as 512, to a row group {REMEDY}"
    ]
    assert warnings(tmp_path, users(pages - 10), 10) == []  # a small folder is read in no time
    assert warnings(tmp_path, users(FEW_GROUPS * FEWEST_PAGES), FEWEST_PAGES) == []


@pytest.mark.parametrize(("parts", "most"), [(1, MOST_GROUPS_ONCE), (MOST_OPEN + 1, MOST_GROUPS)])
def test_a_part_of_many_row_groups_has_too_long_a_footer(tmp_path: Path, parts: int, most: int) -> None:
    def lines(groups: int) -> list[str]:
        return warnings(tmp_path, users(groups * FEWEST_PAGES), FEWEST_PAGES, parts)

    assert lines(most) == []
    found = lines(most + 1)
    size = pq.read_metadata(tmp_path / "0.parquet").serialized_size
    assert found == [
        f"{tmp_path}/{part}.parquet: {most + 1:,} row groups make a footer of {size / 1e6:.1f} MB, which is read whole "
        f"to read any of them: write at most {most:,} to a part {REMEDY}"
        for part in range(parts)
    ]


def test_row_groups_that_a_rank_cannot_hold_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert row_groups.MOST_BYTES > 1e9
    monkeypatch.setattr(row_groups, "MOST_BYTES", 1 << 25)  # gigabytes take seconds to write
    pages, each = 200, (1 << 25) // LANES // 4 // 100  # twice as much as fits
    offsets = pa.array(range(0, pages * each + 1, each), pa.int32())
    items, times = (pa.repeat(pa.scalar(3, kind), pages * each) for kind in (pa.int32(), pa.int64()))
    table = pa.table(
        {
            "long_items": pa.ListArray.from_arrays(offsets, items),
            "long_times": pa.ListArray.from_arrays(offsets, times),  # which the reader does not read
            "user": [1] * pages,
        }
    )
    (line,) = warnings(tmp_path, table, pages)
    assert line == (
        f"{tmp_path}/0.parquet: row group 0 has 200 pages, 0.0011 GB when decoded; a rank holds what it "
        f"needs of up to 64 (data.lanes), at most 0.1 GB: write about 64 pages to a row group {REMEDY}"
    )
    assert warnings(tmp_path, table, 64) == []


def test_a_check_says_so_and_the_folder_stays_valid(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset(pages={"train": FEW_GROUPS, "validation": 20, "test": 20})
    path = folder / "train" / "part-00000.parquet"
    pq.write_table(pq.read_table(path), path, row_group_size=1)
    report = check(folder, write_stats=True)
    assert report.errors == []
    (line,) = report.warnings
    assert line.startswith(f"{folder}/train: 256 row groups of 1.0 pages on average; ")

"""Unknown and new ids, and rows of tables in use, are counted; what is beyond belief is warned of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from lightning_ccn.data.check.check import check

Columns = dict[str, list]
Edit = Callable[..., Path]


def figure(folder: Path, start: str) -> list[str]:
    (line,) = [line for line in check(folder).figures if line.strip().startswith(start)]
    return line.split()[2:]


def test_shares_of_unknown_ids_and_of_rows_in_use_are_reported(dataset: Path) -> None:
    tables = {split: pq.read_table(dataset / split) for split in ("train", "validation", "test")}
    unknown = [f"{np.mean(table.column('city').to_numpy() == 0):.1%}" for table in tables.values()]
    assert figure(dataset, "column city")[:3] == unknown

    users = {split: set(table.column("user").to_pylist()) for split, table in tables.items()}
    known = users["train"] | users["validation"]
    new = np.mean([user not in known for user in tables["test"].column("user").to_pylist()])
    assert figure(dataset, "column user")[3] == f"{new:.1%}"
    used = known | users["test"]
    assert figure(dataset, "table user") == ["40", f"{len(used) / 40:.1%}", str(len(used - known))]


def test_a_table_of_billions_of_rows_is_checked_without_its_rows_in_mind(make_dataset: Edit) -> None:
    folder = make_dataset(mapping="hash")
    schema = folder / "schema.yaml"
    schema.write_text(schema.read_text().replace("rows: 41", f"rows: {2**40}"))
    report = check(folder)
    assert report.errors == []
    assert report.notes == ["table user: 1,099,511,627,776 rows are too many to note which are used"]
    assert not any("table user" in line for line in report.figures)


def test_items_that_are_all_unknown_are_warned_of(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    edit(folder, "train", lambda c: c.update(items=[[0] * len(items) for items in c["items"]]))
    assert check(folder, write_stats=True).warnings == [
        f"{folder}/train: column items: 100.0% of the ids are 0, the unknown id; map the original ids to the rows "
        "1, 2, ... of its table"
    ]


def test_a_test_split_with_ids_of_its_own_is_warned_of(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset(items=200, pages={"train": 50, "validation": 20, "test": 60})
    for split in ("train", "validation", "test"):
        low = 101 if split == "test" else 1
        names = ("items", "short_items", "long_items")

        def of_its_own(columns: Columns, low: int = low, names: tuple[str, ...] = names) -> None:
            for name in names:
                columns[name] = [[low + item % 100 for item in items] for items in columns[name]]
            columns["trigger"] = [low + item % 100 for item in columns["trigger"]]

        edit(folder, split, of_its_own)
    warnings = check(folder, write_stats=True).warnings
    assert f"{folder}/test: column items: 100.0% of the ids are in no training or validation page; " in warnings[0]
    assert all("give an id the same row in all splits" in warning for warning in warnings)

"""Numbers that mean "missing", or that tell the clicks, are warned of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.writer import Moments

Columns = dict[str, list]
Edit = Callable[..., Path]


@pytest.mark.parametrize("missing", [-1e9, 2.0**31])
def test_a_word_for_missing_among_the_numbers_is_warned_of(make_dataset: Edit, edit: Edit, missing: float) -> None:
    def put(columns: Columns) -> None:
        for row in range(0, 96, 7):
            columns["price"][row][0] = missing

    folder = make_dataset(numbers=("price",))
    edit(folder, "train", put)
    (warning,) = check(folder, write_stats=True).warnings
    assert warning.startswith(f"{folder}/train: column price: {missing:g} is ")
    assert warning.endswith("; write NaN or null for an unknown number")


@pytest.mark.parametrize("missing", [None, 9.0])
def test_a_number_that_tells_the_clicks_is_warned_of(make_dataset: Edit, edit: Edit, missing: float | None) -> None:
    def dwell_time(columns: Columns) -> None:  # known only after a click
        columns["price"] = [[5.0 if click else missing for click in clicks] for clicks in columns["clicks"]]

    folder = make_dataset(numbers=("price",))
    edit(folder, "train", dwell_time)
    (warning,) = check(folder, write_stats=True).warnings
    auc = "1.000" if missing is None else "0.000"
    assert warning.startswith(f"{folder}/train: column price: its AUC alone is {auc}, so it tells the clicks")


def test_a_number_of_pages_that_tells_the_clicks_or_means_missing_is_warned_of(make_dataset: Edit) -> None:
    folder = make_dataset()
    with (folder / "schema.yaml").open("a") as schema:
        schema.write("page_numbers: [dwell, age]\n")
    for path in folder.glob("*/part-00000.parquet"):
        table = pq.read_table(path)
        clicks = table.column("clicks").to_pylist()
        alike = [[int(sum(of_page) > 0)] * len(of_page) for of_page in clicks]
        table = table.set_column(table.schema.get_field_index("clicks"), "clicks", pa.array(alike))
        table = table.append_column("dwell", pa.array([float(of_page[0]) for of_page in alike]))
        table = table.append_column(
            "age", pa.array([float(page % 7) if page % 9 else -1e9 for page in range(len(clicks))])
        )
        pq.write_table(table, path)
    told, missing = check(folder, write_stats=True).warnings
    assert missing.startswith(f"{folder}/train: column age: -1e+09 is ")
    assert told.startswith(f"{folder}/train: column dwell: its AUC alone is 1.000, so it tells the clicks")


def test_yes_or_no_and_heavy_tails_are_honest_numbers(make_dataset: Edit, edit: Edit) -> None:
    rng = np.random.default_rng(0)

    def honest(columns: Columns) -> None:
        columns["price"] = [list(np.exp(rng.normal(3, 1.5, len(items)))) for items in columns["items"]]
        columns["new"] = [[float(rng.random() < 0.02) for _ in items] for items in columns["items"]]

    folder = make_dataset(numbers=("price", "new"))
    edit(folder, "train", honest)
    report = check(folder, write_stats=True)
    assert (report.errors, report.warnings) == ([], [])


def test_moments_are_those_of_all_numbers_also_far_from_zero_and_beside_sentinels() -> None:
    times = 1.7e12 + np.random.default_rng(0).normal(0, 3, 1000)
    moments = Moments()
    for chunk in np.split(times, 10):
        moments.add(np.concatenate([chunk, [np.nan, 1e300, -3.5e38]]))
    assert moments.count == 1000
    assert moments.mean == pytest.approx(times.mean(), abs=1e-3)
    assert moments.deviation == pytest.approx(times.std(), rel=1e-3)


def test_numbers_that_are_all_equal_have_no_deviation(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset(numbers=("price",))
    edit(folder, "train", lambda c: c.update(price=[[0.1] * len(items) for items in c["items"]]))
    check(folder, write_stats=True)
    mean, deviation = json.loads((folder / "stats.json").read_text())["numbers"]["price"]
    assert (mean, deviation) == (pytest.approx(0.1), 1.0)

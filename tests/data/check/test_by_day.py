"""Days are counted as they are; a day whose clicks are missing and a page of the future are warned of."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check

Columns = dict[str, list]
Edit = Callable[..., Path]
DAY = 86_400
START = 1_600_000_000 // DAY * DAY


def date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def spread(columns: Columns) -> None:
    """Lets every third part of the pages begin three days after the one before it; 2023-11-15 becomes three days."""
    pages = len(columns["time"])
    columns["time"] = [time + 3 * DAY * (3 * row // pages) for row, time in enumerate(columns["time"])]


def test_the_sums_of_a_day_are_those_counted_page_by_page(dataset: Path) -> None:
    found = check(dataset).plain()["days"]
    for split in ("train", "validation", "test"):
        pages = pq.read_table(dataset / split).to_pylist()
        days = sorted({date(page["time"]) for page in pages})
        assert found[split]["day"] == days
        for at, day in enumerate(days):
            of_day = [page for page in pages if date(page["time"]) == day]
            expected = {
                "pages": len(of_day),
                "items": sum(len(page["items"]) for page in of_day),
                "labelled": sum(len(page["items"]) for page in of_day),
                "clicks": sum(sum(page["clicks"]) for page in of_day),
                "with_trigger": sum(page["trigger"] != 0 for page in of_day),
                "with_short": sum(page["short_items"] != [] for page in of_day),
                "with_long": sum(page["long_items"] != [] for page in of_day),
            }
            assert {name: found[split][name][at] for name in expected} == expected
            columns = found[split]["columns"]
            assert columns["city"]["ids"][at] == len(of_day)
            assert columns["city"]["unknown"][at] == sum(page["city"] == 0 for page in of_day)
            assert columns["interests"]["ids"][at] == sum(len(page["interests"]) for page in of_day)


@pytest.mark.parametrize("label", [0, 1])
def test_a_day_whose_labels_are_all_equal_is_warned_of_with_its_first_page(
    make_dataset: Edit, edit: Edit, label: int
) -> None:
    place: list[tuple[str, int, int]] = []

    def forget(columns: Columns) -> None:
        spread(columns)
        days = [date(time) for time in columns["time"]]
        (day, _) = Counter(days).most_common(1)[0]
        rows = [row for row, of in enumerate(days) if of == day]
        for row in rows:
            columns["clicks"][row] = [label] * len(columns["clicks"][row])
        place.append((day, rows[0], sum(len(columns["items"][row]) for row in rows)))

    folder = make_dataset(pages={"train": 600, "validation": 24, "test": 24})
    path = edit(folder, "train", forget)
    (day, row, items), days = place[0], len(check(folder).plain()["days"]["train"]["day"])
    report = check(folder, write_stats=True)
    assert report.errors == []
    assert report.warnings == [
        f"{folder}/train: column clicks: on 1 of {days} days all are {label}, such as the {items} of {day}, from "
        f"{path}: row {row} on; join the clicks of these days, or leave their pages out"
    ]


def test_days_of_few_items_in_a_row_have_no_click_by_mistake(make_dataset: Edit, edit: Edit) -> None:
    clicks: list[list[int]] = []

    def forget(columns: Columns) -> None:
        columns["time"] = [START + DAY * (row // 4) for row in range(600)]  # 2 or 3 clicks a day
        for name in ("short", "long"):
            columns[f"{name}_items"], columns[f"{name}_times"] = [[]] * 600, [[]] * 600
        columns["clicks"][200:400] = [[0] * len(clicks) for clicks in columns["clicks"][200:400]]
        columns["items"][300:304] = columns["clicks"][300:304] = [[]] * 4  # a day without an item has no label
        clicks.extend([*itertools.chain(*columns["clicks"][row : row + 4])] for row in range(0, 600, 4))

    folder = make_dataset(pages={"train": 600, "validation": 24, "test": 24})
    path = edit(folder, "train", forget)
    first = next(day for day in range(50, 0, -1) if any(clicks[day - 1]))  # days beside them may have none by chance
    last = next(day for day in range(99, 149) if any(clicks[day + 1]))
    *_, warning = check(folder, write_stats=True).warnings
    assert warning == (
        f"{folder}/train: column clicks: on {last - first} of 150 days all are 0, such as the {len(clicks[first])} of "
        f"{date(START + DAY * first)}, from {path}: row {4 * first} on; join the clicks of these days, or leave their "
        "pages out"
    )


def test_pages_of_a_row_group_with_errors_are_of_no_day(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    edit(folder, "train", lambda columns: columns["items"][12].__setitem__(0, 999))  # the second of ten groups
    days = check(folder).plain()["days"]["train"]
    assert sum(days["pages"]) == 86
    assert sum(days["items"]) == sum(days["labelled"])


def test_a_day_of_few_items_may_have_no_click(make_dataset: Edit, edit: Edit) -> None:
    def forget(columns: Columns) -> None:
        spread(columns)
        columns["time"][-1] += 2 * DAY
        columns["clicks"][-1] = [0] * len(columns["clicks"][-1])

    folder = make_dataset()
    edit(folder, "train", forget)
    assert check(folder, write_stats=True).warnings == []


def test_pages_of_the_future_are_counted_with_an_example(make_dataset: Edit, edit: Edit) -> None:
    folder = make_dataset()
    path = edit(folder, "test", lambda columns: columns.update(time=[t + 80 * 365 * DAY for t in columns["time"]]))
    first = pq.read_table(path).column("time")[0].as_py()
    assert check(folder, write_stats=True).warnings == [
        f"{folder}/test: column time: 24 pages are later than now, such as {first} "
        f"({datetime.fromtimestamp(first, UTC):%Y-%m-%d %H:%M:%S}) in {path}: row 0; write when the page was shown, in "
        "seconds since 1970"
    ]

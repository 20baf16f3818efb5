from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.convert import ebnerd
from lightning_ccn.data.convert.ebnerd import convert_ebnerd
from lightning_ccn.data.convert.mind import convert_mind
from lightning_ccn.data.convert.pages import ConversionReport
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.errors import DataError

START = 1_684_400_000

# (impression, user, session, trigger, seconds after START, in view, clicked), in no order, as in the real files
LOG: list[tuple[int, int, int, int | None, int, list[int], list[int]]] = [
    (16, 1, 9, 100, 3000, [5, 1], [5]),
    (10, 1, 1, 100, 60, [2, 3], [3, 2]),
    (14, 2, 2, 101, 1000, [3, 4], []),
    (17, 3, 3, 102, 1500, [1, 2], [1]),
    (11, 1, 1, 100, 0, [1, 2, 100], [2]),
    (12, 1, 1, None, 70, [1, 7], [7]),
    (13, 2, 2, 100, 30, [100], [100]),
    (18, 3, 3, 102, 2500, [2], [2]),
    (15, 3, 4, 103, 2000, [3, 103, 4], [4, 6]),
    (11, 1, 1, 100, 0, [1, 2, 100], [2]),
]
# user: (article, seconds after START) of what was read
HISTORY: dict[int, list[tuple[int, int]]] = {
    1: [(50, -7200), (51, -3600), (52, -10), (53, 0), (54, 500)],
    2: [(4, -3600)],
    8: [(60, -20)],
}
SHARES: dict[str, Any] = {"validation": 0.2, "test": 0.2}


def write_log(folder: Path, log: list[Any] = LOG, history: dict[int, Any] = HISTORY) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    columns = list(zip(*log, strict=True))
    seconds = pa.array([(START + at) * 1_000_000 + 500_000 for at in columns[4]], pa.timestamp("us"))
    behaviors = pa.table(
        {
            "impression_id": pa.array(columns[0], pa.uint32()),
            "article_id": pa.array(columns[3], pa.int32()),
            "impression_time": seconds,
            "read_time": pa.array([20.0] * len(log), pa.float32()),
            "device_type": pa.array([1 + user % 2 for user in columns[1]], pa.int8()),
            "article_ids_inview": pa.array(columns[5], pa.list_(pa.int32())),
            "article_ids_clicked": pa.array(columns[6], pa.list_(pa.int32())),
            "user_id": pa.array(columns[1], pa.uint32()),
            "gender": pa.array([None if user == 2 else 1 for user in columns[1]], pa.int8()),
            "is_subscriber": pa.array([user == 3 for user in columns[1]]),
            "session_id": pa.array(columns[2], pa.uint32()),
        }
    )
    pq.write_table(behaviors, folder / "behaviors.parquet", row_group_size=3)
    times = [[(START + at) * 1_000_000 for _, at in read] for read in history.values()]
    histories = pa.table(
        {
            "user_id": pa.array(list(history), pa.uint32()),
            "impression_time_fixed": pa.array(times, pa.list_(pa.timestamp("us"))),
            "article_id_fixed": pa.array([[a for a, _ in read] for read in history.values()], pa.list_(pa.int32())),
        }
    )
    pq.write_table(histories, folder / "history.parquet")
    return folder


def write_articles(folder: Path) -> None:
    articles = pa.table(
        {
            "article_id": pa.array([1, 2, 3, 50, 100], pa.int32()),
            "premium": pa.array([True, False, False, None, True]),
            "published_time": pa.array(
                [(START - 3600) * 1_000_000, None, (START + 5) * 1_000_000, 0, 0], pa.timestamp("us")
            ),
            "article_type": ["video", "article", "article", "article", None],
            "category": pa.array([118, 118, 140, 140, 142], pa.int16()),
            "subcategory": pa.array([[7, 8], [], None, [8], [9]], pa.list_(pa.int16())),
            "total_inviews": pa.array([1, 2, 3, 4, 5], pa.int32()),
        }
    )
    pq.write_table(articles, folder / "articles.parquet")


def originals(folder: Path, table: str) -> list[Any]:
    """Original ids by row; None is the unknown row."""
    return [None, *pq.read_table(folder / "vocabulary" / f"{table}.parquet")["id"].to_pylist()]


def read_pages(folder: Path) -> dict[int, dict[str, Any]]:
    """Pages by page id, with original ids in place of rows, and times after START."""
    dataset = Dataset.open(folder)
    of = {name: originals(folder, name) for name, table in dataset.schema.tables.items() if table.mapping == "dense"}
    pages = {}
    for split in SPLITS:
        for part in dataset.parts(split):
            for row in pq.read_table(part).to_pylist():
                for name in ("items", "short_items", "long_items"):
                    row[name] = [of["item"][item] for item in row[name]]
                for name in ("short_times", "long_times"):
                    row[name] = [time - START for time in row[name]]
                for feature in dataset.schema.user:
                    if feature.table in of:
                        row[feature.name] = of[feature.table][row[feature.name]]
                row |= {"split": split, "time": row["time"] - START, "trigger": of["item"][row["trigger"]]}
                pages[row["page_id"]] = row
    return pages


def hours(seconds: int) -> float:
    return math.log1p(seconds / 3600)


def assert_adds_up(report: ConversionReport) -> None:
    for kind in ("impressions", "pages", "items", "clicks"):
        read, dropped, kept = (sum(report.counts[kind][fate].values()) for fate in ("read", "dropped", "kept"))
        assert read == dropped + kept, kind


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_log(tmp_path / "log" / "train")
    return tmp_path / "log"


def test_a_page_is_what_a_session_showed_under_one_trigger(log: Path, tmp_path: Path) -> None:
    convert_ebnerd(log, tmp_path / "out", **SHARES)
    pages = read_pages(tmp_path / "out")
    assert {number: (page["split"], page["time"]) for number, page in pages.items()} == {
        11: ("train", 0),
        14: ("train", 1000),
        15: ("validation", 2000),
        16: ("test", 3000),
    }
    assert pages[11]["trigger"] == 100
    assert (pages[11]["items"], pages[11]["clicks"]) == ([1, 2, 3], [0, 1, 1])  # of impressions 11 and 10
    assert (pages[14]["items"], pages[14]["clicks"]) == ([3, 4], [0, 0])
    assert (pages[15]["items"], pages[15]["clicks"]) == ([3, 4], [0, 1])  # a click on 6 was not in view
    assert (pages[16]["items"], pages[16]["clicks"]) == ([5, 1], [1, 0])
    profile = [(page["user"], page["device_type"], page["gender"], page["is_subscriber"]) for page in pages.values()]
    assert profile == [(1, 2, 1, 0), (2, 1, None, 0), (3, 2, 1, 1), (1, 2, 1, 0)]


def test_report_names_what_was_dropped_and_adds_up(log: Path, tmp_path: Path) -> None:
    report = convert_ebnerd(log, tmp_path / "out", **SHARES)
    crossing, empty = "page view crosses the boundary of a split", "no item on the page view"
    assert report.counts["impressions"]["read"] == {"total": 10}
    assert report.counts["impressions"]["dropped"] == {
        "impression_id read before": 1,
        "front page: no trigger": 1,
        empty: 1,
        crossing: 2,
    }
    assert report.counts["pages"]["read"] == {"total": 6}
    assert report.counts["pages"]["dropped"] == {empty: 1, crossing: 1}
    assert report.counts["pages"]["kept"] == {"train": 2, "validation": 1, "test": 1}
    assert report.counts["pages"]["noted"] == {
        "without a behaviour before them": 1,
        "without a click": 1,
        "with several clicks": 1,
    }
    assert report.counts["items"]["dropped"]["in view again on the same page"] == 2
    assert report.counts["items"]["dropped"]["the trigger itself"] == 3
    assert report.counts["clicks"]["dropped"]["on an item that was not in view"] == 1
    assert report.counts["clicks"]["dropped"]["on the trigger itself"] == 1
    assert_adds_up(report)
    stored = json.loads((tmp_path / "out" / "report.json").read_text())
    assert stored["pages"] == report.counts["pages"]
    assert stored["options"]["drop_trigger"] is True
    assert "front page: no trigger" in str(report)
    assert f"trigger: {stored['trigger']}" in str(report) and stored["trigger"].startswith("a true one")


def test_behaviours_are_earlier_than_the_page_and_short_is_the_end_of_long(log: Path, tmp_path: Path) -> None:
    convert_ebnerd(log, tmp_path / "out", **SHARES, short=2, long=4)
    pages = read_pages(tmp_path / "out")
    assert pages[11]["long_items"] == [50, 51, 52]  # 53 was read in the second of the page, 54 after it
    assert pages[11]["long_times"] == [-7200, -3600, -10]
    assert pages[11]["short_items"] == [51, 52]
    assert pages[16]["long_items"] == [51, 52, 53, 54]
    assert (pages[15]["long_items"], pages[15]["short_items"]) == ([], [])  # a user without a history


def test_log_clicks_join_the_behaviours_when_the_user_left_for_them(log: Path, tmp_path: Path) -> None:
    convert_ebnerd(log, tmp_path / "out", **SHARES, log_clicks=True)
    pages = read_pages(tmp_path / "out")
    # impressions 11, 10 and 12 at 0, 60 and 70, each left after 20 seconds; page 11 itself began before all that
    assert pages[16]["long_items"] == [50, 51, 52, 53, 2, 3, 2, 7, 54]
    assert pages[16]["long_times"][4:8] == [20, 80, 80, 90]
    assert pages[11]["long_items"] == [50, 51, 52]


def test_without_articles_the_age_of_an_item_counts_from_its_first_appearance(log: Path, tmp_path: Path) -> None:
    convert_ebnerd(log, tmp_path / "out", **SHARES)
    pages = read_pages(tmp_path / "out")
    assert pages[11]["item_age"] == [0, 0, 0]  # item 3 came to this page a minute later
    # item 3 was in view at 60, item 4 read by user 2 an hour before the log
    assert pages[14]["item_age"] == pytest.approx([hours(940), hours(4600)])
    assert pages[16]["item_age"] == pytest.approx([0, hours(3000)])
    schema = Dataset.open(tmp_path / "out").schema
    assert (schema.attributes, schema.category, schema.numbers) == ((), None, ("item_age",))


@pytest.mark.parametrize("beside", [True, False])
def test_articles_give_attributes_and_ages_since_publication(log: Path, tmp_path: Path, beside: bool) -> None:
    write_articles(log if beside else log.parent)
    source = log if beside else log.parent / "log"
    report = convert_ebnerd(source, tmp_path / "out", **SHARES)
    pages = read_pages(tmp_path / "out")
    # published an hour before the log, at a time not known, and after the page began
    assert pages[11]["item_age"] == pytest.approx([hours(3600), math.nan, 0], nan_ok=True)
    assert Dataset.open(tmp_path / "out").schema.category == "category"
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    names = ("category", "subcategory", "premium", "article_type")
    of = {name: originals(tmp_path / "out", name) for name in names}
    item = originals(tmp_path / "out", "item")
    by_id = {item[row["item"]]: tuple(of[name][row[name]] for name in names) for row in items}
    assert by_id[1] == (118, 7, 1, "video")
    assert by_id[2] == (118, None, 0, "article")
    assert by_id[100] == (142, 9, 1, None)
    assert by_id[5] == by_id[None] == (None, None, None, None)
    assert report.counts["articles"]["noted"] == {"on pages or in behaviours, not in articles.parquet": 8}


def test_front_page_impressions_of_a_session_are_a_page_without_trigger(log: Path, tmp_path: Path) -> None:
    report = convert_ebnerd(log, tmp_path / "out", **SHARES, front_page=True)
    page = read_pages(tmp_path / "out")[12]
    assert (page["trigger"], page["items"], page["clicks"]) == (None, [1, 7], [0, 1])
    assert_adds_up(report)


def test_impressions_can_be_pages_of_their_own_and_keep_the_trigger(log: Path, tmp_path: Path) -> None:
    report = convert_ebnerd(log, tmp_path / "out", **SHARES, pages="impression", drop_trigger=False)
    pages = read_pages(tmp_path / "out")
    assert set(pages) == {10, 11, 13, 14, 15, 16, 17, 18}
    assert (pages[11]["items"], pages[11]["clicks"]) == ([1, 2, 100], [0, 1, 0])
    assert (pages[13]["items"], pages[13]["clicks"]) == ([100], [1])
    assert_adds_up(report)


def test_any_number_of_spill_files_gives_the_same_pages(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = convert_ebnerd(log, tmp_path / "one", **SHARES, log_clicks=True)
    monkeypatch.setattr(ebnerd, "IMPRESSIONS_PER_SPILL", 2)
    many = convert_ebnerd(log, tmp_path / "many", **SHARES, log_clicks=True)
    assert many.counts == one.counts
    assert read_pages(tmp_path / "many") == read_pages(tmp_path / "one")
    assert {path.name for path in tmp_path.iterdir()} == {"log", "one", "many"}  # no spill is left


def test_splits_are_disjoint_in_time_and_the_folder_is_valid(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    log = [
        (
            n,
            int(rng.integers(1, 9)),
            n // 3,
            int(rng.integers(100, 110)),
            int(rng.integers(0, 9000)),
            [n, n + 1],
            [n],
        )
        for n in range(1, 300)
    ]
    write_log(tmp_path / "log", log)
    report = convert_ebnerd(tmp_path / "log", tmp_path / "out")
    assert_adds_up(report)
    splits = Dataset.open(tmp_path / "out").splits
    for earlier, later in (("train", "validation"), ("validation", "test")):
        assert splits[earlier].last_time < splits[later].first_time  # type: ignore[operator]
    shares = np.array([splits[split].pages for split in SPLITS]) / report.counts["pages"]["read"]["total"]
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.02)
    assert check(tmp_path / "out", False).errors == []


def test_official_split_tests_on_the_validation_folder_with_its_own_histories(log: Path, tmp_path: Path) -> None:
    later = [
        (30, 1, 20, 100, 9000, [8, 9], [8]),
        (31, 9, 21, 100, 9100, [8, 9], [9]),
        (14, 2, 2, 101, 1000, [3, 4], []),  # is already in train/
    ]
    write_log(log / "validation", later[:2], {1: [(70, 8000), (71, 9050)]})
    report = convert_ebnerd(log, tmp_path / "out", split="official", validation=0.2)
    pages = read_pages(tmp_path / "out")
    assert {number: page["split"] for number, page in pages.items()} == {
        11: "train", 14: "train", 17: "train", 15: "train", 16: "validation", 30: "test", 31: "test",
    }  # fmt: skip
    assert pages[30]["long_items"] == [70]
    assert pages[16]["long_items"] == [50, 51, 52, 53, 54]
    assert_adds_up(report)
    write_log(log / "validation", later)
    report = convert_ebnerd(log, tmp_path / "again", **SHARES)
    assert report.counts["impressions"]["dropped"]["impression_id read before"] == 2


def test_extending_keeps_the_meaning_of_old_rows(log: Path, tmp_path: Path) -> None:
    write_articles(log)
    convert_ebnerd(log, tmp_path / "old", **SHARES)
    later = [(40 + n, 7, 30 + n, 200, 20_000 + n, [2, 300 + n], [2]) for n in range(10)]
    source = write_log(tmp_path / "elsewhere" / "later", later, {7: [(50, 0), (400, 1)]})  # without articles
    convert_ebnerd(source, tmp_path / "new", extends=tmp_path / "old")
    old, new = Dataset.open(tmp_path / "old"), Dataset.open(tmp_path / "new")
    for table in old.schema.tables:
        before, after = originals(tmp_path / "old", table), originals(tmp_path / "new", table)
        assert after[: len(before)] == before
    assert new.schema.tables["item"].rows > old.schema.tables["item"].rows
    assert (new.schema.user, new.schema.attributes) == (old.schema.user, old.schema.attributes)
    items_before = pq.read_table(tmp_path / "old" / "items.parquet")
    items_after = pq.read_table(tmp_path / "new" / "items.parquet")
    assert items_after.slice(0, len(items_before)) == items_before
    assert read_pages(tmp_path / "new")[40]["items"] == [2, 300]
    assert check(tmp_path / "new", False).errors == []


def test_hashed_users_need_no_vocabulary_and_stay_hashed_when_extended(log: Path, tmp_path: Path) -> None:
    convert_ebnerd(log, tmp_path / "out", **SHARES, hash_users=1000)
    convert_ebnerd(log, tmp_path / "more", **SHARES, extends=tmp_path / "out")
    assert Dataset.open(tmp_path / "more").schema.tables["user"] == Dataset.open(tmp_path / "out").schema.tables["user"]
    assert not (tmp_path / "more" / "vocabulary" / "user.parquet").exists()
    first, again = read_pages(tmp_path / "out"), read_pages(tmp_path / "more")
    assert [page["user"] for page in first.values()] == [page["user"] for page in again.values()]
    assert first[11]["user"] == first[16]["user"] != first[15]["user"]
    assert all(0 < page["user"] < 1000 for page in first.values())
    with pytest.raises(DataError, match=r"table 'user' has 1000 rows, mapping hash.*asks for 50 hashed rows"):
        convert_ebnerd(log, tmp_path / "no", hash_users=50, extends=tmp_path / "out")


def rewrite(path: Path, change: Any) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def cast(name: str, column: Any) -> Any:
    return lambda table: table.set_column(table.column_names.index(name), name, column)


BROKEN: dict[str, tuple[Any, str]] = {
    "a file missing": (
        lambda log: (log / "train" / "history.parquet").unlink(),
        r"train/history\.parquet: no such file; give the folder of the unpacked archive",
    ),
    "a column missing": (
        lambda log: rewrite(log / "train" / "behaviors.parquet", lambda t: t.drop_columns("article_ids_clicked")),
        r"behaviors\.parquet: column 'article_ids_clicked' is missing; the file has impression_id, article_id",
    ),
    "a wrong type": (
        lambda log: rewrite(log / "train" / "behaviors.parquet", cast("impression_time", pa.array(["x"] * 10))),
        r"behaviors\.parquet: column 'impression_time' holds string; cast it to a timestamp",
    ),
    "a list expected": (
        lambda log: rewrite(log / "train" / "history.parquet", cast("article_id_fixed", pa.array([1, 2, 3]))),
        r"history\.parquet: column 'article_id_fixed' holds int64; cast it to a list of integers",
    ),
    "a truncated file": (
        lambda log: (log / "train" / "behaviors.parquet").write_bytes(
            (log / "train" / "behaviors.parquet").read_bytes()[:-200]
        ),
        r"behaviors\.parquet: not a complete Parquet file",
    ),
    "no rows": (
        lambda log: rewrite(log / "train" / "behaviors.parquet", lambda table: table.slice(0, 0)),
        r"behaviors\.parquet: has no rows",
    ),
    "a null user": (
        lambda log: rewrite(
            log / "train" / "behaviors.parquet", cast("user_id", pa.array([1, 2, None, 4, 5, 6, 7, 8, 9, 10]))
        ),
        r"behaviors\.parquet: row 2 \(the first is 0\), column 'user_id': null",
    ),
    "a null in a list": (
        lambda log: rewrite(
            log / "train" / "behaviors.parquet", cast("article_ids_inview", pa.array([[1]] * 9 + [[2, None]]))
        ),
        r"behaviors\.parquet: row 9 \(the first is 0\), column 'article_ids_inview': null",
    ),
    "ragged histories": (
        lambda log: rewrite(
            log / "train" / "history.parquet",
            cast("article_id_fixed", pa.array([[50, 51, 52, 53, 54], [4, 5], [60]])),
        ),
        r"history\.parquet: row 1 has 2 values in article_id_fixed and 1 in impression_time_fixed",
    ),
    "no trigger anywhere": (
        lambda log: rewrite(log / "train" / "behaviors.parquet", cast("article_id", pa.nulls(10, pa.int32()))),
        r"no page view is left to train on; of 10 impressions dropped: .*9 \(front page: no trigger\)",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_logs_are_rejected_and_leave_nothing_behind(what: str, log: Path, tmp_path: Path) -> None:
    damage, message = BROKEN[what]
    damage(log)
    with pytest.raises(DataError, match=message):
        convert_ebnerd(log, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 0.5, "test": 0.5}, r"validation is 0\.5 and test 0\.5: they are shares of the pages"),
        ({"test": -0.1}, r"test -0\.1"),
        ({"short": 10, "long": 5}, r"short is 10 and long 5: the short sequence is the end of the long one"),
        ({"split": "official"}, r"has no validation/ folder, which split=official needs"),
    ],
)
def test_impossible_options_are_rejected(options: dict[str, Any], message: str, log: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        convert_ebnerd(log, tmp_path / "out", **options)


def test_a_dataset_of_another_kind_of_log_cannot_be_extended(log: Path, tmp_path: Path) -> None:
    mind = tmp_path / "mind"
    mind.mkdir()
    (mind / "news.tsv").write_text("N1\tsports\tgolf\tt\ta\tu\t[]\t[]\n")
    lines = [f"{n}\tU1\t11/11/2019 9:05:0{n} AM\tN1\tN2-0 N3-1\n" for n in range(1, 9)]
    (mind / "behaviors.tsv").write_text("".join(lines))
    convert_mind(mind, tmp_path / "old")
    with pytest.raises(DataError, match="has string ids, but this log has int64"):
        convert_ebnerd(log, tmp_path / "out", extends=tmp_path / "old")
    convert_ebnerd(log, tmp_path / "older")
    with pytest.raises(DataError, match="has the feature 'device_type', which this converter cannot write"):
        convert_mind(mind, tmp_path / "out", extends=tmp_path / "older")

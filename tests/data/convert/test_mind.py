from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.convert import mind
from lightning_ccn.data.convert.mind import convert_mind
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.errors import DataError

NOON = 1_573_473_600  # 11/11/2019 12:00:00 PM
TRAIN = [
    "1\tU1\t11/11/2019 12:00:30 PM\tN1 N2 N3\tN4-1 N5-0 N3-0 N4-0",
    "2\tU2\t11/11/2019 9:05:58 AM\t\tN4-0 N5-1",
    "3\tU3\t11/11/2019 12:00:00 PM\tN9\tN4-0 N5-1",
    "4\tU1\t11/11/2019 1:00:00 PM\tN1 N2 N3\tN5-0 N6-0",
    "5\tU3\t11/11/2019 1:00:01 PM\tN9\tN9-1",
]
DEV = ["1\tU4\t11/12/2019 12:00:00 AM\tN6\tN7-1 N8-0"]
NEWS = [
    ("N1", "sports", "golf"),
    ("N4", "news", "world"),
    ("N5", "sports", "soccer"),
    ("N7", "news", "local"),
]


def write_log(folder: Path, lines: list[str], news: list[tuple[str, str, str]] = NEWS) -> Path:
    folder.mkdir(parents=True)
    (folder / "behaviors.tsv").write_text("".join(f"{line}\n" for line in lines))
    text = "".join(f'{row[0]}\t{row[1]}\t{row[2]}\tsays "so\t\thttps://x\t[]\t[{{"Label": "a"}}]\n' for row in news)
    (folder / "news.tsv").write_text(text)
    return folder


def read_pages(folder: Path) -> dict[int, dict[str, Any]]:
    """Pages by page id, with original ids in place of rows."""
    of = {
        name: [None, *pq.read_table(folder / "vocabulary" / f"{name}.parquet")["id"].to_pylist()]
        for name in ("item", "user")
    }
    pages = {}
    for split in SPLITS:
        for part in Dataset.open(folder).parts(split):
            for row in pq.read_table(part).to_pylist():
                for name in ("items", "short_items", "long_items"):
                    row[name] = [of["item"][item] for item in row[name]]
                row |= {
                    "split": split,
                    "trigger": of["item"][row["trigger"]],
                    "user": of["user"][row["user"]],
                }
                pages[row["page_id"]] = row
    return pages


@pytest.fixture
def log(tmp_path: Path) -> Path:
    write_log(tmp_path / "log" / "train", TRAIN)
    write_log(tmp_path / "log" / "dev", DEV)
    return tmp_path / "log"


def test_an_impression_is_a_page_and_the_last_click_its_trigger(log: Path, tmp_path: Path) -> None:
    convert_mind(log, tmp_path / "out", validation=0.25, test=0.25, short=2)
    pages = read_pages(tmp_path / "out")
    # numbered by line, dev/ after the 5 lines of train/; two of four in train
    assert {number: page["split"] for number, page in pages.items()} == {
        3: "train", 1: "train", 4: "validation", 6: "test",
    }  # fmt: skip
    page = pages[1]
    assert (page["user"], page["trigger"], page["time"]) == ("U1", "N3", NOON + 30)
    assert (page["items"], page["clicks"]) == (["N4", "N5"], [1, 0])  # N4 twice, N3 the trigger
    assert (page["long_items"], page["short_items"]) == (["N1", "N2", "N3"], ["N2", "N3"])
    assert page["long_times"] == [NOON + 27, NOON + 28, NOON + 29]
    assert check(tmp_path / "out", False).errors == []


def test_age_counts_from_the_first_page_that_shows_the_news(log: Path, tmp_path: Path) -> None:
    convert_mind(log, tmp_path / "out", validation=0.25, test=0.25)
    pages = read_pages(tmp_path / "out")
    assert pages[1]["item_age"] == pytest.approx([math.log1p(30 / 3600)] * 2)
    assert pages[4]["item_age"] == pytest.approx([math.log1p(1), 0])


def test_news_give_category_and_subcategory(log: Path, tmp_path: Path) -> None:
    report = convert_mind(log, tmp_path / "out", validation=0.25, test=0.25)
    schema = Dataset.open(tmp_path / "out").schema
    assert ([feature.name for feature in schema.attributes], schema.category) == (
        ["category", "subcategory"],
        "category",
    )
    names = ("item", "category", "subcategory")
    of = {
        name: [None, *pq.read_table(tmp_path / "out" / "vocabulary" / f"{name}.parquet")["id"].to_pylist()]
        for name in names
    }
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    by_id = {
        of["item"][row["item"]]: (of["category"][row["category"]], of["subcategory"][row["subcategory"]])
        for row in items
    }
    assert by_id["N1"] == ("sports", "golf")
    assert by_id["N7"] == ("news", "local")
    assert by_id["N9"] == (None, None)
    assert report.counts["news"]["noted"] == {"on pages or in histories, not in news.tsv": 5}


def test_report_adds_up(log: Path, tmp_path: Path) -> None:
    report = convert_mind(log, tmp_path / "out", validation=0.25, test=0.25)
    reasons = {"user without a history: no trigger": 1, "no item on the page view": 1}
    assert report.counts["pages"]["read"] == {"total": 6}
    assert report.counts["pages"]["dropped"] == reasons
    assert report.counts["items"]["dropped"]["the trigger itself"] == 2
    assert report.counts["items"]["dropped"]["in view again on the same page"] == 1
    for kind in ("impressions", "pages", "items", "clicks"):
        read, dropped, kept = (sum(report.counts[kind][fate].values()) for fate in ("read", "dropped", "kept"))
        assert read == dropped + kept, kind
    assert str(report).endswith("is used instead, so draw no conclusions about triggers")


def test_users_without_a_history_and_triggers_can_be_kept(log: Path, tmp_path: Path) -> None:
    convert_mind(log, tmp_path / "out", without_history=True, drop_trigger=False)
    pages = read_pages(tmp_path / "out")
    assert set(pages) == {1, 2, 3, 4, 5, 6}
    assert (pages[2]["trigger"], pages[2]["long_items"]) == (None, [])
    assert (pages[5]["items"], pages[5]["clicks"]) == (["N9"], [1])


def test_official_split_tests_on_dev(log: Path, tmp_path: Path) -> None:
    convert_mind(log, tmp_path / "out", split="official", validation=1 / 3)
    splits = {number: page["split"] for number, page in read_pages(tmp_path / "out").items()}
    assert splits == {3: "train", 1: "train", 4: "validation", 6: "test"}


def test_chunks_of_the_file_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"{n}\tU{n % 7}\t11/11/2019 12:{59 - n % 60:02}:00 PM\tN{n} N2\tN{n % 9}-1 N5-0" for n in range(200)]
    source = write_log(tmp_path / "log", lines)
    one = convert_mind(source, tmp_path / "one")
    monkeypatch.setattr(mind, "CHUNK_BYTES", 1000)
    many = convert_mind(source, tmp_path / "many")
    assert many.counts == one.counts
    assert read_pages(tmp_path / "many") == read_pages(tmp_path / "one")


def test_extending_keeps_the_meaning_of_old_rows(log: Path, tmp_path: Path) -> None:
    convert_mind(log, tmp_path / "old")
    lines = [f"{n}\tU9\t11/20/2019 12:00:0{n} PM\tN1 N50\tN7-1 N60-0" for n in range(9)]
    source = write_log(tmp_path / "later", lines, [("N60", "weather", "rain"), ("N1", "sports", "golf")])
    convert_mind(source, tmp_path / "new", extends=tmp_path / "old")
    for table in ("item", "user", "category", "subcategory"):
        before, after = (
            pq.read_table(tmp_path / name / "vocabulary" / f"{table}.parquet")["id"].to_pylist()
            for name in ("old", "new")
        )
        assert after[: len(before)] == before
        assert len(after) > len(before)
    items = [pq.read_table(tmp_path / name / "items.parquet") for name in ("old", "new")]
    assert items[1].slice(0, len(items[0])) == items[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2\tU2\t11/11/2019 9:05:58 AM\tN1", r"line 3 has 4 fields, not 5: '2\\tU2"),
        ("", r"line 3, field Time: ''"),
        (
            "2\tU2\t2019-11-11 09:05:58\tN1\tN2-0",
            r"line 3, field Time: '2019-11-11 09:05:58'; write it as month/day",
        ),
        (
            "2\tU2\t11/11/2019 9:05:58 AM\tN1\tN2-0 N3-2",
            r"line 3, field Impressions: 'N3-2'; write news id, hyphen",
        ),
        (
            "2\tU2\t11/11/2019 9:05:58 AM\tN1\tN2 N3",
            r"line 3, field Impressions: 'N2'; it does not say whether it was clicked, as in MIND's test",
        ),
        ("2\tU2\t11/11/2019 9:05:58 AM\tN1\tN2-0\xff", r"line 3, field Impressions: 'N2-0ÿ'"),
    ],
)
def test_malformed_lines_are_rejected_by_number(line: str, message: str, tmp_path: Path) -> None:
    source = write_log(tmp_path / "log", [TRAIN[0], TRAIN[2], line, *TRAIN])
    with pytest.raises(DataError, match=rf"behaviors\.tsv: {message}"):
        convert_mind(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["log"]


def test_lines_are_numbered_through_all_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mind, "CHUNK_BYTES", 1000)
    lines = [TRAIN[0]] * 200
    for number, (line, message) in enumerate(
        [
            ("too\tfew", "line 151 has 2 fields"),
            (TRAIN[0].replace("N5-0", "N5"), "line 151, field Impressions: 'N5'"),
        ]
    ):
        source = write_log(tmp_path / f"log{number}", [*lines[:150], line, *lines[150:]])
        with pytest.raises(DataError, match=message):
            convert_mind(source, tmp_path / "out")


def test_what_is_missing_is_named(log: Path, tmp_path: Path) -> None:
    (log / "dev" / "news.tsv").unlink()
    with pytest.raises(DataError, match=r"dev/news\.tsv: no such file"):
        convert_mind(log, tmp_path / "out")
    with pytest.raises(DataError, match=r"has no dev/ folder, which split=official needs"):
        convert_mind(log / "train", tmp_path / "out", split="official")
    (log / "train" / "behaviors.tsv").write_text("")
    with pytest.raises(DataError, match=r"behaviors\.tsv: .*Empty"):
        convert_mind(log / "train", tmp_path / "out")
    (log / "train" / "behaviors.tsv").write_text("1\tU1\t11/11/2019 9:05:58 AM\t\tN1-0\n")
    with pytest.raises(DataError, match="no page view is left to train on"):
        convert_mind(log / "train", tmp_path / "out")

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.data.build.draft import draft
from lightning_ccn.data.build.read_spec import read_spec
from lightning_ccn.data.build.source_specs import PositionSpec
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import NOON, Row, build, event, exposure, read_pages, write_rows


def test_a_draft_of_a_log_with_clear_names_builds_as_it_is(tmp_path: Path) -> None:
    rows = [
        {"page_id": f"v{view}", "user_id": f"u{view % 3}", "entry_item": "i1", "item_id": f"i{item}",
         "shown_ms": (NOON + 60 * view) * 1000, "slot": item, "device": "phone", "price": 1.5 + view / 7}
        for view in range(20) for item in range(3)
    ]  # fmt: skip
    write_rows(tmp_path / "impressions" / "part-0.csv", rows[:30])
    write_rows(tmp_path / "impressions" / "part-1.csv", rows[30:])
    told = [event(f"u{at % 3}", f"i{at % 3}", NOON + 60 * at) for at in range(20)]
    write_rows(tmp_path / "events.parquet", told)
    items = [{"item_id": f"i{at}", "genres": ["a"] * at, "category": f"c{at % 2}", "cost": 2.5, "image": [at / 9, 1.0]}
             for at in range(9)]  # fmt: skip
    write_rows(tmp_path / "items.parquet", items)
    users = [{"user_id": f"u{at}", "city": "Rome" if at % 2 else "Oslo", "band": at / 7} for at in range(9)]
    write_rows(tmp_path / "users.parquet", users)
    write_rows(tmp_path / "stock.csv", [{"shelf": 1}])
    text = draft(tmp_path)
    (tmp_path / "log.yaml").write_text(text)
    spec = read_spec(tmp_path / "log.yaml")
    assert spec.exposures.files == ("impressions",) and spec.exposures.time.unit == "ms"
    assert (spec.exposures.trigger, spec.exposures.position) == ("entry_item", PositionSpec("slot"))
    assert [feature.column for feature in (*spec.profile, *spec.attributes)] == ["city", "category", "genres"]
    assert (spec.numbers, spec.page_numbers) == (("price", "cost"), ("band",))
    assert spec.items is not None and spec.items.category == "category" and spec.vectors[0].column == "image"
    assert "# not used: stock.csv" in text and "type: type  # such as 'click'" not in text
    assert build(tmp_path / "log.yaml").faults == []
    assert len(read_pages(tmp_path / "out")) == 20


def test_a_draft_of_a_log_with_lists_takes_the_clicked_ids(tmp_path: Path) -> None:
    rows = [
        {**exposure(view, view % 2, [1, 2], NOON + view, clicked=[1]), "entry": 3, "slot": None} for view in range(8)
    ]
    write_rows(tmp_path / "impressions.parquet", rows)
    (tmp_path / "log.yaml").write_text(draft(tmp_path))
    assert "clicks: {ids: clicked}" in (tmp_path / "log.yaml").read_text()
    build(tmp_path / "log.yaml")
    assert read_pages(tmp_path / "out")[0]["clicks"] == [1, 0]


def test_a_draft_of_a_log_with_lists_of_0_and_1_takes_them_as_labels(tmp_path: Path) -> None:
    rows = [
        {**exposure(view, view % 2, [1, 2], NOON + view, clicked=[0, 1]), "entry": 3, "slot": None} for view in range(8)
    ]
    write_rows(tmp_path / "impressions.parquet", rows)
    (tmp_path / "log.yaml").write_text(draft(tmp_path))
    build(tmp_path / "log.yaml")
    assert read_pages(tmp_path / "out")[0]["clicks"] == [0, 1]


def test_a_draft_takes_all_events_without_a_type_for_clicks_and_semicolons_and_validity_as_they_are(
    tmp_path: Path,
) -> None:
    rows = [{"view": f"v{at}", "user": "u", "item": "a", "time": NOON + at, "entry": "b"} for at in range(8)]
    header, lines = ";".join(rows[0]), [";".join(map(str, row.values())) for row in rows]
    (tmp_path / "impressions.csv").write_text("\n".join([header, *lines]) + "\n")
    write_rows(tmp_path / "clicks.csv", [{"user": "u", "item": "a", "time": NOON + 2}])
    profile = [{"user": "u", "city": "Rome", "valid_from": NOON + 4, "valid_to": NOON + 6}] * 3
    write_rows(tmp_path / "users.parquet", profile)
    text = draft(tmp_path)
    assert '  files: impressions.csv\n  delimiter: ";"\n' in text
    (tmp_path / "log.yaml").write_text(text)
    build(tmp_path / "log.yaml")
    pages = sorted(read_pages(tmp_path / "out"), key=lambda page: page["time"])
    assert [page["clicks"] for page in pages] == [[0], [0], [1], *[[0]] * 5]
    assert [page["city"] for page in pages] == [*[None] * 4, "Rome", "Rome", None, None]


def test_a_draft_names_the_type_of_clicks_if_there_is_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "impressions.parquet", [{"view": "v", "user": "u", "item": "a", "time": NOON}])
    for types, words in ((("item_click", "buy"), "[item_click]"), (("tap", "buy"), "[TODO]")):
        write_rows(tmp_path / "events.parquet", [event("u", "a", NOON, type) for type in types])
        assert f"  clicks: {{types: {words}, within: 30m}}" in draft(tmp_path)


def test_a_draft_takes_the_table_with_most_types_as_events_and_says_what_else_may_be_one(tmp_path: Path) -> None:
    write_rows(tmp_path / "impressions.parquet", [{"view": "v", "user": "u", "item": "a", "shown_at": NOON}])
    clicks = [{"user_id": f"u{at}", "item_id": "a", "clicked_at": NOON} for at in range(99)]
    write_rows(tmp_path / "clicks.csv", clicks)
    write_rows(tmp_path / "events.csv", [event("u", "a", NOON, kind) for kind in ("click", "view")])
    write_rows(tmp_path / "stock.csv", [{"shelf": 1}])
    text = draft(tmp_path)
    assert "  files: events.csv\n" in text and "  type: type  # click, view\n" in text
    assert "# not used: clicks.csv; if it has events too, unite it with events.csv, see docs/build.md\n" in text
    assert "# not used: stock.csv\n" in text
    (tmp_path / "events.csv").unlink()
    for more in ("a_clicks.csv", "z_clicks.csv"):  # of tables with the same columns, the larger one
        write_rows(tmp_path / more, clicks[:1])
    text = draft(tmp_path)
    assert "  files: clicks.csv\n" in text and f"  time: {{column: clicked_at, unit: s}}  # such as '{NOON}'\n" in text


@pytest.mark.parametrize(
    "name", ["clicked_at", "clickedAt", "event_time", "purchaseTimestamp", "view_ts", "visit_date", "at"]
)
def test_a_draft_takes_a_column_as_a_time_by_the_end_of_its_name(tmp_path: Path, name: str) -> None:
    write_rows(tmp_path / "events.csv", [{"user": "u", "item": "a", name: NOON}])
    assert f"  time: {{column: {name}, unit: s}}" in draft(tmp_path)


def test_a_draft_takes_the_time_of_showing_and_leaves_out_that_of_the_click(tmp_path: Path) -> None:
    rows = [{"view": "v", "user": "u", "clicked_at": NOON, "item": "a", "clicked": 1, "shown_at": NOON}] * 3
    write_rows(tmp_path / "impressions.csv", rows)
    text = draft(tmp_path)
    assert "  time: {column: shown_at, unit: s}" in text and "  clicks: clicked  #" in text
    assert "clicked_at" not in text


def test_a_draft_takes_a_column_as_a_time_by_its_values_if_no_name_tells(tmp_path: Path) -> None:
    rows = [{"view": "v", "cust": "u", "sku": "a", "ms": 1000 * NOON + at, "price": 1.5 + at} for at in range(3)]
    write_rows(tmp_path / "impressions.csv", rows)
    text = draft(tmp_path)
    assert "  user: cust" in text and "  time: {column: ms, unit: ms}" in text
    assert "  numbers: [price]\n" in text
    rows = [
        {**row, "shown_at": NOON, "price": 10 * NOON} for row in rows
    ]  # a price of 10 digits is none of s, ms, us, ns
    write_rows(tmp_path / "impressions.csv", rows)
    text = draft(tmp_path)
    assert "  time: {column: shown_at, unit: s}" in text and "  numbers: [price]\n" in text


def test_files_of_one_table_are_one_and_others_stay_apart(tmp_path: Path) -> None:
    row = {"view": "v", "user": "u", "item": "a", "time": NOON, "clicked": 1}
    write_rows(tmp_path / "impressions_1.csv", [row])
    write_rows(tmp_path / "impressions_2.csv", [dict(reversed(row.items()))])
    profile: Row = {"user": "u", "city": "Rome"}
    for name in ("users_a.parquet", "users_b.parquet"):
        write_rows(tmp_path / name, [profile] * 3)
    text = draft(tmp_path)
    assert "  files: 'impressions_*.csv'\n" in text and "  files: 'users_*.parquet'\n" in text
    assert "not used" not in text and "city" in text
    (tmp_path / "log.yaml").write_text(text)
    assert build(tmp_path / "log.yaml").counts["impressions"]["read"] == {"total": 2}
    write_rows(tmp_path / "impressions_old.csv", [row])  # the pattern would read it
    assert "# not used: impressions_2.csv\n" in draft(tmp_path)
    (tmp_path / "impressions_old.csv").unlink()
    write_rows(tmp_path / "impressions_2.csv", [{**row, "more": 1}])
    text = draft(tmp_path)
    assert "  files: impressions_1.csv\n" in text and "# not used: impressions_2.csv\n" in text


def test_a_draft_of_lists_takes_the_shown_items_and_a_page_id_and_numbers_of_the_page(tmp_path: Path) -> None:
    rows: list[Row] = [
        {"article_ids_inview": [1, 2, 3], "session_id": f"s{at // 2}", "visitor": at % 3, "impression_time": NOON + at,
         "article_id": at % 5, "article_ids_clicked": [2], "device_type": "phone", "age_of_session": at / 3}
        for at in range(12)
    ]  # fmt: skip
    write_rows(tmp_path / "behaviors_a.parquet", rows[:6])
    write_rows(tmp_path / "behaviors_b.parquet", rows[6:])
    write_rows(tmp_path / "history.parquet", [{"visitor": 1, "article_id": 2, "impression_time": NOON - 9}])
    articles = [{"article_id": at, "premium": at % 2 == 0, "cost": at / 7} for at in range(9)]
    write_rows(tmp_path / "articles.parquet", articles)
    (tmp_path / "log.yaml").write_text(draft(tmp_path))
    spec = read_spec(tmp_path / "log.yaml")
    shown = spec.exposures
    assert (shown.files, shown.page.columns, shown.item) == (
        ("behaviors_*.parquet",), ("visitor", "impression_time"), "article_ids_inview",
    )  # fmt: skip
    assert (shown.clicks.ids, shown.trigger, spec.page_numbers) == ("article_ids_clicked", None, ("age_of_session",))
    assert [feature.column for feature in shown.features] == ["device_type"]
    assert spec.events is not None and spec.events.files == ("history.parquet",)
    assert [feature.column for feature in spec.attributes] == ["premium"] and spec.numbers == ("cost",)
    assert build(tmp_path / "log.yaml").faults == []
    assert [page["items"] for page in read_pages(tmp_path / "out")] == [[1, 2, 3]] * 12


def test_a_draft_takes_the_unit_that_most_times_have(tmp_path: Path) -> None:
    times = ["unknown", "0", *(NOON * 1000 + at for at in range(9))]
    rows = [{"req": f"r{at}", "user": "u", "item": "a", "shown_ms": time} for at, time in enumerate(times)]
    write_rows(tmp_path / "impressions.csv", rows)
    text = draft(tmp_path)
    assert "  time: {column: shown_ms, unit: ms}" in text and "  page: req  #" in text


def test_a_draft_of_a_table_without_rows_shows_no_value(tmp_path: Path) -> None:
    (tmp_path / "impressions.csv").write_text("view,user,item,time,clicked\n")
    assert "  user: user  # without a value\n" in draft(tmp_path)


def test_what_no_name_suggests_is_left_to_do(tmp_path: Path) -> None:
    write_rows(tmp_path / "log.parquet", [{"a": 1, "b": "x", "when": NOON}])
    text = draft(tmp_path)
    assert "  item: TODO  # no column has such a name; the columns are a, b, when" in text
    assert "  time: {column: when, unit: s}" in text


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder; name the folder with the files of the log"):
        draft(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="no file of a log; a table is a file, or a subfolder of files, of "):
        draft(tmp_path)

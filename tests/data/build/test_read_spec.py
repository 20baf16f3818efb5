from __future__ import annotations

import re
from pathlib import Path

import pytest

from lightning_ccn.data.build.log_files import find_log, in_words
from lightning_ccn.data.build.read_spec import read_spec
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import write_rows

ROOT = Path(__file__).parents[3]
WHOLE = """\
exposures:
  files: log
  page: view
  user: user
  item: item
  time: at
  clicks: clicked
"""
EVENTS = "events: {files: events, user: user, item: item, time: at}\n"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.yaml"
    path.write_text(text)
    return path


def test_short_forms_mean_the_same_as_long_ones(tmp_path: Path) -> None:
    long = WHOLE.replace("log", "[log]").replace("view", "{columns: [view]}").replace("time: at", "time: {column: at}")
    long = long.replace("clicks: clicked", "clicks: {column: clicked}")
    assert read_spec(write(tmp_path, WHOLE)) == read_spec(write(tmp_path, long))


def test_names_that_look_like_numbers_and_truths_stay_text(tmp_path: Path) -> None:
    spec = read_spec(write(tmp_path, WHOLE + "  numbers: [1, a_2, yes]\n"))
    assert spec.numbers == ("1", "a_2", "yes")


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_a_length_of_time_has_a_unit(tmp_path: Path, text: str, seconds: int) -> None:
    assert read_spec(write(tmp_path, WHOLE + f"split: {{gap: {text}}}\n")).split.gap == seconds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; `ccn data init LOG` writes a first draft of a specification"),
        ("exposures: [", "not YAML: while parsing"),
        ("- exposures", "line 1: the file: expected keys and values; the keys are exposures, events"),
        ("events: {}", "line 1: events: files is missing"),
        (EVENTS, "line 1: the file: exposures is missing"),
        (WHOLE + "  positn: slot\n", r"line 8: exposures.positn: no such key; did you mean position\? The keys are"),
        (WHOLE + "itemz: {}\n", r"line 8: itemz: no such key; did you mean items\?"),
        (WHOLE + "  user: other\n", "line 8: exposures.user: is given twice; keep one"),
        (WHOLE + "  trigger:\n", "line 8: exposures.trigger: expected a name"),
        (WHOLE.replace("files: log", "files: []"), "line 2: exposures.files: is empty; name one at least"),
        (WHOLE.replace("page: view", "page: [a, a]"), "line 3: exposures.page: a name is there twice"),
        (WHOLE + "  numbers: price\n", "line 8: exposures.numbers: expected a list of columns"),
        (WHOLE + "  numbers: [a, a]\n", "the name 'a' is used twice: names must differ"),
        (WHOLE + "  most_items: 0\n", "line 8: exposures.most_items: is 0; it must be 1 or more"),
        (WHOLE + EVENTS + "behaviours: {short: 0}\n", "line 9: behaviours.short: is 0; it must be 1 or more"),
        (WHOLE + EVENTS + "behaviours: {short: -5}\n", "line 9: behaviours.short: is -5; it must be 1 or more"),
        (WHOLE + "  trigger: item\n", "exposures.trigger: is column 'item', and so is exposures.item, which is some"),
        (WHOLE + "  purchases: clicked\n", "exposures.purchases: is column 'clicked', and so is exposures.clicks, w"),
        (WHOLE + EVENTS.replace("user: user", "user: item"), "events.item: is column 'item', and so is events.user,"),
        (WHOLE.replace("time: at", "time: {column: at, unit: s, zone: UTC}"), "line 6: exposures.time.zone: is for d"),
        (WHOLE.replace("time: at", "time: {column: at, offset: 5, zone: UTC}"), "zone: is for dates, and offset for"),
        (WHOLE + "  most_items: many\n", "line 8: exposures.most_items: 'many' is not a whole number"),
        (WHOLE + "  without_trigger: yes\n", "line 8: exposures.without_trigger: 'yes' is neither true nor false"),
        (WHOLE + "  position: {column: slot, first: 2}\n", "line 8: exposures.position.first: is 2; the first"),
        (WHOLE + "users: {files: u, user: u}\n", "users: names neither features nor numbers"),
        (WHOLE + "  weight: w\n  numbers: [w]\n", "the name 'w' is used twice: names must differ"),
        (WHOLE + "  features: city\n", "line 8: exposures.features: expected a list of columns"),
        (WHOLE.replace("time: at", "time: {column: at, unit: m}"), "line 6: exposures.time.unit: 'm' is none of s"),
        (WHOLE.replace("time: at", "time: {column: at, zone: Nowhere}"), "exposures.time.zone: 'Nowhere' is no"),
        (WHOLE.replace("time: at", "time: {column: at, offset: -9}"), "line 6: exposures.time.offset: '-9' is not a"),
        (WHOLE.replace("page: view", "page: {columns: [user], gap: 30}"), "line 3: exposures.page.gap: '30' is not a"),
        (WHOLE.replace("clicked", "{types: [click]}") + EVENTS, "exposures.clicks: types need within: {types: "),
        (WHOLE.replace("clicked", "{column: a, ids: b}"), "exposures.clicks: give one of column, ids and within"),
        (WHOLE.replace("clicked", "{column: a, within: 1h}") + EVENTS, "exposures.clicks: give one of column, ids and"),
        (WHOLE.replace("clicked", "{within: 1h}"), "exposures.clicks: takes labels from events, but"),
        (WHOLE + "users: {files: u, user: u, features: [c], until: e}\n", "users.until: needs since, the time from"),
        (WHOLE.replace("clicked", "{types: [a], within: 1h}"), "exposures.clicks: takes labels from events, but"),
        (WHOLE.replace("clicked", "{types: [a], within: 1h}") + EVENTS, "events.type: missing, but types of events"),
        (WHOLE + "behaviours: {short: 5}\n", "behaviours.short: needs events, and there are none"),
        (WHOLE + EVENTS + "behaviours: {short: {length: 5, cut: 2}}\n", "behaviours.short.cut: only the long"),
        (WHOLE + "vocabulary: {itemx: {at_least: 2}}\n", "vocabulary.itemx: no such table; the tables are user, item"),
        (WHOLE + "vocabulary: {item: {at_least: 2, hash: 9}}\n", "a hashed table has 2 rows at least, and no at_least"),
        (WHOLE + "split: {validation: 0.5, test: 0.5}\n", "split: validation 0.5 and test 0.5 leave nothing to train"),
        (WHOLE + "split: {validation: 0.5, test: 2024-01-01}\n", "split: validation and test must both be dates, or"),
        (WHOLE + "split: {validation: 2024-01-02, test: 2024-01-01}\n", "split: validation begins after test"),
        (WHOLE + "split: {test: soon}\n", "line 8: split.test: 'soon' is neither a date, such as 2024-01-31, nor"),
        (WHOLE + "split: {test: 20}\n", "line 8: split.test: 20 is not a share of the page views"),
        (WHOLE + "  numbers: [items]\n", "the name 'items' is a column of every page row: choose another"),
        (WHOLE + "items: {files: i, item: i, category: topic}\n", "category is 'topic', which is not an item"),
        (WHOLE + "items: {files: i, item: i, attributes: [{column: x, table: item}]}\n", "has the table 'item'; name"),
    ],
    ids=lambda value: str(value)[-40:].strip(),
)  # fmt: skip
def test_what_cannot_be_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_spec(write(tmp_path, text))
    assert str(caught.value).startswith(str(tmp_path / "log.yaml")) and "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"log.yaml: no such file; `ccn data init LOG` writes a first draft of one"):
        read_spec(tmp_path / "log.yaml")


def test_the_example_has_forty_lines_at_most() -> None:
    path = ROOT / "examples" / "raw_log" / "log.yaml"
    assert read_spec(path).exposures.page.columns == ("view",) and len(path.read_text().splitlines()) <= 40


def test_all_that_is_still_to_do_is_refused_at_once_before_any_file_is_looked_for(tmp_path: Path) -> None:
    text = WHOLE.replace("time: at", "time: TODO").replace("clicked", "{types: [TODO], within: 1h}")
    path = write(tmp_path, text + EVENTS.replace("item: item", "item: TODO") + "users: {files: u, user: 'TODO'}\n")
    with pytest.raises(DataError) as caught:
        read_spec(path)
    assert str(caught.value) == (
        f"{path}: line 6: exposures.time; line 7: exposures.clicks.types; line 8: events.item: still TODO; write what "
        "the log calls it, or remove a key that may be left out"
    )


def test_todo_in_quotes_is_a_name(tmp_path: Path) -> None:
    assert read_spec(write(tmp_path, WHOLE.replace("clicked", "'TODO'"))).exposures.clicks.column == "TODO"


@pytest.mark.parametrize("own", ["br[a]cket", "s*"])
def test_the_folder_of_a_specification_is_no_pattern_whatever_it_is_called(tmp_path: Path, own: str) -> None:
    for folder in (own, "bracket", "star"):
        write_rows(tmp_path / folder / "log_1.csv", [{"a": folder}])
    for pattern in ("log_1.csv", "log_*.csv", ".", "**/*.csv"):
        assert find_log("exposures", [pattern], tmp_path / own, None).paths == (tmp_path / own / "log_1.csv",)
    with pytest.raises(DataError, match=rf"{re.escape(own)}/none\*: no such file, but exposures.files names it"):
        find_log("exposures", ["none*"], tmp_path / own, None)


def test_kinds_that_two_files_have_are_said_in_words(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [{"x": [True]}])
    write_rows(tmp_path / "b.parquet", [{"x": {"y": 1}}])
    with pytest.raises(
        DataError, match=r"b.parquet: column x: is a struct, a map, binary or another type that cannot "
    ):
        find_log("exposures", ["*.parquet"], tmp_path, None)
    assert [in_words(kind) for kind in ("list of truth", "int")] == ["list of true/false (boolean)", "int"]

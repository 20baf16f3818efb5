"""Ids and numbers of request files: what pandas and spreadsheets write, and what is refused."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from lightning_ccn.serving.column_values import (
    FieldError,
    ids_of_decimals,
    ids_of_floats,
    ids_of_texts,
    numbers_of_decimals,
    numbers_of_texts,
    read_csv,
)


def test_csv_is_text_until_its_kind_is_known(tmp_path: Path) -> None:
    path = tmp_path / "requests.csv"
    path.write_bytes(b"\xef\xbb\xbfid,items\r\n007,1|2\r\nNA,\r\n1e5,3\r\n")
    assert read_csv(path).to_pylist() == [
        {"id": "007", "items": "1|2"},
        {"id": "NA", "items": None},
        {"id": "1e5", "items": "3"},
    ]


def test_integers_are_read_in_the_forms_that_pandas_writes() -> None:
    texts = ["1003", "1003.0", " -7 ", "NaN", "NA", None]
    assert ids_of_texts(texts, "integer", many=False) == [1003, 1003, -7, None, None, None]
    assert ids_of_texts(["1|2.0|-3", None, "5", "NaN"], "row", many=True) == [[1, 2, -3], None, [5], None]
    assert ids_of_texts(["9223372036854775807"], "integer", many=False) == [2**63 - 1]
    assert ids_of_floats([1003.0, None, -(2.0**52)], many=False) == [1003, None, -(2**52)]
    assert ids_of_floats([[1.0, None], None], many=True) == [[1, None], None]


def test_nan_in_a_column_of_floats_is_a_missing_id() -> None:
    assert ids_of_floats([1003.0, float("nan")], many=False) == [1003, None]
    assert ids_of_floats([[1.0, float("nan")]], many=True) == [[1, None]]


def test_decimals_are_integers_of_any_size_or_floats() -> None:
    assert ids_of_decimals([Decimal("9007199254740993.00"), None], many=False) == [2**53 + 1, None]
    with pytest.raises(FieldError, match=r"1\.5 is not an integer"):
        ids_of_decimals([[Decimal("1.5")]], many=True)
    assert numbers_of_decimals([[Decimal("3.5"), None], None], many=True) == [[3.5, None], None]


def test_texts_stay_as_they_are_written() -> None:
    texts = ["007", "NA", " a", "1e5"]
    assert ids_of_texts(texts, "text", many=False) == texts
    assert ids_of_texts(["007|NA| a", None], "text", many=True) == [["007", "NA", " a"], None]


def test_a_column_of_a_hashed_table_is_of_one_type() -> None:
    assert ids_of_texts(["7", "-3", None], "any", many=False) == [7, -3, None]
    assert ids_of_texts(["7|8", "ann"], "any", many=True) == [["7", "8"], ["ann"]]
    assert ids_of_texts(["7", "007"], "any", many=False) == ["7", "007"]


def test_numbers_may_be_missing_also_within_a_list() -> None:
    assert numbers_of_texts(["1.5", "NA", None, "-2e3"], many=False) == [1.5, None, None, -2000.0]
    [whole, nothing] = numbers_of_texts(["1||NaN|2", ""], many=True)
    assert (str(whole), nothing) == ("[1.0, nan, nan, 2.0]", None)


@pytest.mark.parametrize(
    ("texts", "kind", "many", "at", "words"),
    [
        (["1", "1.5"], "integer", False, 1, "'1.5' is not an integer"),
        (["1e3"], "row", False, 0, "'1e3' is not an integer"),
        (["1", None, "1|x"], "integer", True, 2, "'x' is not an integer"),
        (["1||2"], "integer", True, 0, "'' is not an integer"),
        (["[1, 2]"], "integer", True, 0, "'[1, 2]' is not an integer"),
        (["1_000"], "integer", False, 0, "'1_000' is not an integer"),
        (["\u0661"], "row", False, 0, "is not an integer"),
        (["1" * 5000], "integer", False, 0, "1' is not an integer"),
        (["9007199254740993.0"], "integer", False, 0, "may be a rounded integer"),
        (["1.5", "dear"], None, False, 1, "'dear' is not a number"),
        (["1.5|dear"], None, True, 0, "'dear' is not a number"),
        (["1_000"], None, False, 0, "'1_000' is not a number"),
        (["1|\uff11\uff12"], None, True, 0, "is not a number"),
    ],
)
def test_what_is_no_value_names_its_row(
    texts: list[str | None], kind: str | None, many: bool, at: int, words: str
) -> None:
    with pytest.raises(FieldError) as error:
        numbers_of_texts(texts, many) if kind is None else ids_of_texts(texts, kind, many)
    assert error.value.at == at
    assert words in str(error.value)
    assert len(str(error.value)) < 150


@pytest.mark.parametrize("value", [1.5, float("inf"), 2.0**53])
def test_floats_that_are_no_integers_or_rounded_ones_are_refused(value: float) -> None:
    with pytest.raises(FieldError, match="integer"):
        ids_of_floats([1.0, value], many=False)

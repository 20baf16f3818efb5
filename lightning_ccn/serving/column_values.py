"""Ids and numbers of request files, of which CSV has texts, and pandas makes floats of integers. Needs pyarrow.

pyarrow's own guess of the type of a CSV column is not asked: it would make 7 of the id 007.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

SEPARATOR = "|"  # between the values of a list in CSV
MISSING = frozenset(pyarrow.csv.ConvertOptions().null_values)  # such as NA, unless ids are text: one may be NA
INTEGER = re.compile(r"([+-]?[0-9]{1,99})(\.0*)?")
WRITTEN_AS_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
EXACT = 2**53  # floats below it have every integer
SHOWN = 60  # characters of a value in a message


class FieldError(ValueError):
    """A field of a column is none.

    Args:
        at: Number of the field.
        words: What is wrong with it.
    """

    def __init__(self, at: int, words: str) -> None:
        super().__init__(words)
        self.at = at


def read_csv(path: Path) -> pa.Table:
    """A CSV file with columns of text; an empty field is null.

    Raises:
        OSError, pa.ArrowException: The file cannot be read.
    """
    with pyarrow.csv.open_csv(path) as file:
        names = file.schema.names
    options = pyarrow.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), null_values=[""], strings_can_be_null=True
    )
    return pyarrow.csv.read_csv(path, convert_options=options)


def ids_of_texts(texts: Sequence[str | None], kind: str, many: bool) -> list[Any]:
    """The ids of a column of text.

    Args:
        texts: The fields.
        kind: Type of the ids, see `IdLookup`. Of `any`, a column has integers if all of it looks so, else texts.
        many: Whether a field is a list.

    Returns:
        An id for each field, or a list of them; None for a missing one.

    Raises:
        FieldError: A field is no id, or no list of them.
    """
    if kind == "any":
        pieces = [piece for text in texts if text for piece in (text.split(SEPARATOR) if many else [text])]
        kind = "integer" if all(map(WRITTEN_AS_INTEGER.fullmatch, pieces)) else "text"
    missing = frozenset() if kind == "text" else MISSING
    return _each(_lists(texts, missing) if many else texts, many, str if kind == "text" else _integer, missing)


def numbers_of_texts(texts: Sequence[str | None], many: bool) -> list[Any]:
    """The numbers of a column of text; arguments and errors as of `ids_of_texts`."""
    return _each(_lists(texts, MISSING) if many else texts, many, _number, MISSING)


def ids_of_floats(values: Sequence[Any], many: bool) -> list[Any]:
    """The ids of a column of floats, or of lists of them, which stand for integers; NaN is a missing one, like None.

    Raises:
        FieldError: One is no integer, or may be a rounded one.
    """
    return _each(values, many, _integer_or_missing, frozenset())


def ids_of_decimals(values: Sequence[Any], many: bool) -> list[Any]:
    """The ids of a column of `Decimal`, or of lists of them.

    Raises:
        FieldError: One is no integer.
    """
    return _each(values, many, _integer_of_decimal, frozenset())


def numbers_of_decimals(values: Sequence[Any], many: bool) -> list[Any]:
    """The numbers of a column of `Decimal`, or of lists of them, as floats."""
    return _each(values, many, float, frozenset())


def _lists(texts: Iterable[str | None], missing: frozenset[str]) -> list[list[str] | None]:
    return [None if text is None or text in missing else text.split(SEPARATOR) for text in texts]


def _each(fields: Iterable[Any], many: bool, one: Callable[[Any], Any], missing: frozenset[str]) -> list[Any]:
    found: list[Any] = []
    for at, field in enumerate(fields):
        try:
            if field is None or (not many and field in missing):
                found.append(None)
            else:
                found.append([None if value is None else one(value) for value in field] if many else one(field))
        except ValueError as error:
            raise FieldError(at, str(error)) from None
    return found


def _integer(text: str) -> int:
    match = INTEGER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text[:SHOWN]!r} is not an integer")
    return int(match[1]) if match[2] is None else _integer_of(float(text))


def _integer_of(value: float) -> int:
    if not value.is_integer():
        raise ValueError(f"{value!r} is not an integer")
    if abs(value) >= EXACT:
        raise ValueError(f"{value!r} may be a rounded integer, since it is too large for a float; write integers")
    return int(value)


def _integer_or_missing(value: float) -> int | None:
    return None if math.isnan(value) else _integer_of(value)


def _integer_of_decimal(value: Decimal) -> int:
    if value != (whole := int(value)):
        raise ValueError(f"{value} is not an integer")
    return whole


def _number(text: str) -> float:
    if text in MISSING:
        return math.nan
    try:
        if "_" not in text and text.strip().isascii():  # float also reads 1_000, and digits of other scripts
            return float(text)
    except ValueError:
        pass
    raise ValueError(f"{text[:SHOWN]!r} is not a number")

"""What is asked of a scorer, and the same as rows of tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np

from lightning_ccn.serving.errors import RequestError, check_list, short_text
from lightning_ccn.serving.id_lookup import IdLookup
from lightning_ccn.serving.manifest import Manifest, NumberEntry
from lightning_ccn.serving.request_times import Seconds, Times, times_of

MOST_DEVIATIONS = 1e15  # as in training: the squares of larger numbers overflow float32
ITEM = "item"
Ids = Sequence[Any] | np.ndarray


@dataclass(frozen=True)
class Request:
    """A page to be scored, in the log's own ids.

    Attributes:
        items: The candidates.
        user: Profile features by name: an id, or a list of them for a feature of many values. One that is left out is
            unknown.
        trigger: The item that the user tapped to enter; None: there is none.
        short, long: The user's behaviours, oldest first.
        numbers: Numbers of the candidates by name, one a candidate; NaN or None is unknown, and so is a name left out.
        page_numbers: Numbers of the page by name.
        time: When the candidates are to be shown, in seconds since 1970; only for a model that reads how long ago
            behaviours were, like the next two.
        short_times, long_times: When each behaviour of `short` and of `long` was, in seconds since 1970.
    """

    items: Ids
    user: Mapping[str, Any] = field(default_factory=dict)
    trigger: Any = None
    short: Ids = ()
    long: Ids = ()
    numbers: Mapping[str, Sequence[float | None]] = field(default_factory=dict)
    page_numbers: Mapping[str, float | None] = field(default_factory=dict)
    time: int | None = None
    short_times: Seconds = ()
    long_times: Seconds = ()

    @staticmethod
    def from_plain(plain: Any) -> Request:
        """A request from the values of a JSON document.

        Raises:
            RequestError: A field is unknown, missing or of another form.
        """
        known = [entry.name for entry in fields(Request)]
        if not isinstance(plain, dict):
            raise RequestError(f"a request is an object with items, not {short_text(plain)}")
        for name, value in plain.items():
            if name not in known:
                raise RequestError(f"{short_text(name)}: no such field; the fields are {', '.join(known)}")
            kind = {"trigger": object, "time": object, "user": dict, "numbers": dict, "page_numbers": dict}.get(
                name, list
            )
            if not isinstance(value, kind):
                form = "an object" if kind is dict else "a list"
                said = f"null is not {form}; give one, or leave the field out" if value is None else ""
                raise RequestError(f"{name}: {said or f'{short_text(value)} is not {form}'}")
        if "items" not in plain:
            raise RequestError("items: missing; they are the candidates to be scored")
        return Request(**plain)


@dataclass(frozen=True)
class Rows:
    """A request as rows of tables.

    Attributes:
        user: Int64 [values] for each profile feature, in the manifest's order.
        items, short, long: Int64 [.], rows of the item table.
        trigger: Row of the item table; 0: none, or unknown.
        numbers: Float32 [items, numbers], standardised.
        page_numbers: Float32 [page numbers], standardised.
        unknown: How many ids of each field are not known; fields without any are left out.
        defaulted: Features and numbers that the request leaves out, and numbers of which one or more are unknown.
        times: Of the page and its behaviours; None for a model that does not read them.
    """

    user: Sequence[np.ndarray]
    items: np.ndarray
    short: np.ndarray
    long: np.ndarray
    trigger: int
    numbers: np.ndarray
    page_numbers: np.ndarray
    unknown: Mapping[str, int] = field(default_factory=dict)
    defaulted: tuple[str, ...] = ()
    times: Times | None = None


def encode(request: Request, manifest: Manifest, ids: Mapping[str, IdLookup]) -> Rows:
    """A request's ids as rows, and its numbers standardised.

    Raises:
        RequestError: It is no `Request`, a name is unknown, an id is of another type than the log's, a number is not
            one, or a time is missing, none, not read, or before all that the user did.
    """
    if not isinstance(request, Request):
        raise RequestError(f"{short_text(request)} is not a Request; Request.from_plain makes one of a dictionary")
    unknown: dict[str, int] = {}

    def rows_of(table: str, values: Any, where: str) -> np.ndarray:
        check_list(values, where, "ids")
        rows = ids[table](values, where)
        if misses := len(rows) - int(np.count_nonzero(rows)):
            unknown[where] = misses
        return rows

    def row_of(table: str, value: Any, where: str) -> np.ndarray:
        try:
            return rows_of(table, [value], where)
        except RequestError as error:
            raise _of_one(error, where) from None

    _refuse_others(request.user, [feature.name for feature in manifest.user], "user")
    user = []
    for feature in manifest.user:
        given, where = request.user.get(feature.name), f"user.{feature.name}"
        if given is None:
            user.append(np.zeros(0 if feature.many else 1, np.int64))
        elif feature.many:
            user.append(rows_of(feature.table, given, where))
        elif isinstance(given, list | dict):
            raise RequestError(f"{where}: {short_text(given)} is not one id")
        else:
            user.append(row_of(feature.table, given, where))
    items = rows_of(ITEM, request.items, "items")
    trigger = 0 if request.trigger is None else int(row_of(ITEM, request.trigger, "trigger")[0])
    missing = [f"user.{f.name}" for f in manifest.user if request.user.get(f.name) is None]
    numbers = _numbers(request.numbers, manifest.numbers, len(items), missing)
    page_numbers = _page_numbers(request.page_numbers, manifest.page_numbers, missing)
    return Rows(
        user=user,
        items=items,
        short=rows_of(ITEM, request.short, "short"),
        long=rows_of(ITEM, request.long, "long"),
        trigger=trigger,
        numbers=numbers,
        page_numbers=page_numbers,
        unknown=unknown,
        defaulted=tuple(missing),
        times=times_of(request, manifest),
    )


def _numbers(given: Mapping[str, Any], entries: Sequence[NumberEntry], items: int, missing: list[str]) -> np.ndarray:
    """Float32 [items, numbers]; appends those that are left out, or unknown for some item, to `missing`."""
    _refuse_others(given, [entry.name for entry in entries], "numbers")
    columns = np.zeros((items, len(entries)), np.float32)
    for at, entry in enumerate(entries):
        where = f"numbers.{entry.name}"
        if entry.name not in given:
            missing.append(where)
            continue
        values = given[entry.name]
        check_list(values, where, "numbers")
        if len(values) != items:
            raise RequestError(f"{where}: has {len(values)} numbers for {items} items; give one for each")
        floats = _floats(values, where)
        columns[:, at] = standardise(floats, entry, where)
        if np.isnan(floats).any():
            missing.append(where)
    return columns


def _page_numbers(given: Mapping[str, Any], entries: Sequence[NumberEntry], missing: list[str]) -> np.ndarray:
    """Float32 [page numbers]; appends those that are left out or unknown to `missing`."""
    _refuse_others(given, [entry.name for entry in entries], "page_numbers")
    values = np.zeros(len(entries), np.float32)
    for at, entry in enumerate(entries):
        where = f"page_numbers.{entry.name}"
        try:
            floats = _floats([given.get(entry.name)], where)
            values[at] = standardise(floats, entry, where)[0]
        except RequestError as error:
            raise _of_one(error, where) from None
        if np.isnan(floats[0]):
            missing.append(where)
    return values


def _of_one(error: RequestError, where: str) -> RequestError:
    """The error of a field with one value, which was read as a list of it."""
    return RequestError(str(error).replace(f"{where}[0]", where, 1))


def _floats(values: Sequence[Any] | np.ndarray, where: str) -> np.ndarray:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values.astype(np.float64)
    for at, value in enumerate(values):
        if value is not None and (not isinstance(value, int | float | np.number) or isinstance(value, bool)):
            raise RequestError(f"{where}[{at}]: {short_text(value)} is not a number")
    try:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    except OverflowError:
        raise RequestError(f"{where}: an integer in it is too large for a number") from None


def standardise(values: np.ndarray, entry: NumberEntry, where: str) -> np.ndarray:
    """Numbers in deviations from the mean of training, as training scales them; NaN becomes the mean: float64 [n].

    Raises:
        RequestError: A number is too far from the mean to be computed with.
    """
    with np.errstate(over="ignore"):
        standard = np.nan_to_num((values - entry.mean) / entry.deviation, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if len(far := np.flatnonzero(np.abs(standard) > MOST_DEVIATIONS)):
        raise RequestError(
            f"{where}[{far[0]}]: {values[far[0]]:g} is too far from the mean of training, {entry.mean:g}; give null "
            "for an unknown number"
        )
    return standard


def _refuse_others(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    if not isinstance(given, Mapping):
        raise RequestError(f"{where}: {short_text(given)} does not map names to values")
    for name in given:
        if name not in known:
            names = f"the model reads {', '.join(known)}" if known else "the model reads none"
            raise RequestError(f"{where}.{short_text(name)}: no such feature; {names}")

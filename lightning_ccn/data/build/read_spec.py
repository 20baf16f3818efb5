"""Reads a specification: every key is known, every value is of its kind, and a message names the line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from lightning_ccn.data.build.source_specs import (
    UNITS,
    CatalogueSpec,
    EventSpec,
    ExposureSpec,
    FeatureSpec,
    LabelSpec,
    NumberSpec,
    PageKeySpec,
    PositionSpec,
    ProfileSpec,
    TimeSpec,
    VectorSpec,
)
from lightning_ccn.data.build.spec import AdmissionSpec, BehaviourSpec, LogSpec, SequenceSpec, SplitSpec
from lightning_ccn.errors import DataError

Spec = TypeVar("Spec")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
NOTHING = "tag:yaml.org,2002:null"
TODO = "TODO"  # what `ccn data init` writes where it found nothing


class PlaceError(Exception):
    """A value that cannot be; `node` knows its line."""

    def __init__(self, node: Node, where: str, what: str) -> None:
        super().__init__(f"line {node.start_mark.line + 1}: {where}: {what}" if where else what)


def read_spec(path: str | Path) -> LogSpec:
    """Reads a specification from a YAML file.

    Raises:
        DataError: The file cannot be read, a key is unknown or missing, or a value is wrong; it names the line.
    """
    path = Path(path)
    try:
        root = yaml.compose(path.read_text(), Loader=yaml.SafeLoader)
        to_do = [] if root is None else list(_to_do(root, ""))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; `ccn data init LOG` writes a first draft of one") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        if root is None:
            raise DataError("is empty; `ccn data init LOG` writes a first draft of a specification")
        if to_do:
            raise DataError(
                f"{'; '.join(to_do)}: still {TODO}; write what the log calls it, or remove a key that may be left out"
            )
        spec = _mapping(LogSpec, root, "")
        spec.refuse_contradictions()
    except (DataError, PlaceError) as error:
        raise DataError(f"{path}: {error}") from None
    return spec


def _to_do(node: Node, where: str) -> Iterator[str]:
    """The place of each value that is still to be written; in quotes, TODO is a name."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            yield from _to_do(value, f"{where}.{key.value}" if where else str(key.value))
    elif isinstance(node, SequenceNode):
        for entry in node.value:
            yield from _to_do(entry, where)
    elif isinstance(node, ScalarNode) and node.value == TODO and node.style is None:
        yield f"line {node.start_mark.line + 1}: {where}"


def _mapping(kind: type[Spec], node: Node, where: str) -> Spec:
    """A dataclass of `spec` from a mapping."""
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(node, MappingNode):
        raise PlaceError(node, where or "the file", f"expected keys and values; the keys are {', '.join(known)}")
    given: dict[str, Any] = {}
    for key, value in node.value:
        name, here = str(key.value), f"{where}.{key.value}" if where else str(key.value)
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {close[0]}? " if close else ""
            raise PlaceError(key, here, f"no such key; {meant}The keys are {', '.join(known)}")
        if name in given:
            raise PlaceError(key, here, "is given twice; keep one")
        given[name] = _reader(known[name])(value, here)
    for name, wanted in known.items():
        if name not in given and wanted.default is MISSING and wanted.default_factory is MISSING:
            raise PlaceError(node, where or "the file", f"{name} is missing")
    return kind(**given)


def _text(node: Node, where: str) -> str:
    if not isinstance(node, ScalarNode) or node.tag == NOTHING or not node.value:
        raise PlaceError(node, where, "expected a name")
    return str(node.value)


def _texts(node: Node, where: str) -> tuple[str, ...]:
    entries = node.value if isinstance(node, SequenceNode) else [node]
    found = tuple(_text(entry, where) for entry in entries)
    if not found or len(set(found)) < len(found):
        raise PlaceError(node, where, "is empty; name one at least" if not found else "a name is there twice; keep one")
    return found


def _number(node: Node, where: str) -> int:
    text = _text(node, where)
    if not re.fullmatch(r"[0-9][0-9_]{0,15}", text):
        raise PlaceError(node, where, f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _count(node: Node, where: str) -> int:
    text = _text(node, where)
    if re.fullmatch(r"-[0-9_]+|[0_]+", text):
        raise PlaceError(node, where, f"is {text}; it must be 1 or more")
    return _number(node, where)


def _truth(node: Node, where: str) -> bool:
    text = _text(node, where)
    if text not in ("true", "false"):
        raise PlaceError(node, where, f"{text!r} is neither true nor false")
    return text == "true"


def _duration(node: Node, where: str) -> int:
    text = _text(node, where)
    match = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if not match:
        raise PlaceError(node, where, f"{text!r} is not a length of time, such as 45s, 30m, 12h, 7d or 2w")
    return int(match[1]) * SECONDS[match[2]]


def _date_or_share(node: Node, where: str) -> float:
    text = _text(node, where)
    try:
        share = float(text)
    except ValueError:
        try:
            date = datetime.fromisoformat(text)
        except ValueError:
            raise PlaceError(node, where, f"{text!r} is neither a date, such as 2024-01-31, nor a share") from None
        return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    if not 0 <= share < 1:
        raise PlaceError(node, where, f"{text} is not a share of the page views, which is from 0 to below 1")
    return share


def _short(kind: type[Spec], name: str) -> Callable[[Node, str], Spec]:
    """Reads a dataclass, or a plain value that stands for its field `name`."""

    def read(node: Node, where: str) -> Spec:
        if isinstance(node, MappingNode):
            return _mapping(kind, node, where)
        own = next(f for f in fields(kind) if f.name == name)  # type: ignore[arg-type]
        return kind(**{name: _reader(own)(node, where)})

    return read


def _whole(kind: type[Spec]) -> Callable[[Node, str], Spec]:
    return lambda node, where: _mapping(kind, node, where)


def _time(node: Node, where: str) -> TimeSpec:
    time = _short(TimeSpec, "column")(node, where)
    if time.unit is not None and time.unit not in UNITS:
        raise PlaceError(node, f"{where}.unit", f"{time.unit!r} is none of {', '.join(UNITS)}")
    if time.zone is not None:
        of_numbers = [name for name in ("unit", "offset") if getattr(time, name)]
        if of_numbers:
            raise PlaceError(
                node,
                f"{where}.zone",
                f"is for dates, and {of_numbers[0]} for numbers, which count in UTC; leave out one of them",
            )
        try:
            ZoneInfo(time.zone)
        except (ValueError, OSError, KeyError):
            raise PlaceError(
                node, f"{where}.zone", f"{time.zone!r} is no time zone, such as Europe/Copenhagen"
            ) from None
    return time


def _position(node: Node, where: str) -> PositionSpec:
    position = _short(PositionSpec, "column")(node, where)
    if position.first not in (None, 0, 1):
        raise PlaceError(node, f"{where}.first", f"is {position.first}; the first position is 0 or 1")
    return position


def _list_of(kind: type[Spec], example: str) -> Callable[[Node, str], tuple[Spec, ...]]:
    """Reads a list of columns, each with its name or with more."""

    def read(node: Node, where: str) -> tuple[Spec, ...]:
        if not isinstance(node, SequenceNode):
            raise PlaceError(node, where, f"expected a list of columns: {example}")
        one = _short(kind, "column")
        return tuple(one(entry, f"{where}.{at}") for at, entry in enumerate(node.value))

    return read


def _admissions(node: Node, where: str) -> dict[str, AdmissionSpec]:
    if not isinstance(node, MappingNode):
        raise PlaceError(node, where, "expected tables: {item: {at_least: 2}, user: {hash: 1000000}}")
    found: dict[str, AdmissionSpec] = {}
    for key, value in node.value:
        here = f"{where}.{key.value}"
        found[str(key.value)] = admission = _mapping(AdmissionSpec, value, here)
        if admission.hash is not None and (admission.hash < 2 or admission.at_least):
            raise PlaceError(value, here, "a hashed table has 2 rows at least, and no at_least")
    return found


# By what the annotation of a field says.
READERS: dict[str, Callable[[Node, str], Any]] = {
    "str": _text,
    "tuple[str, ...]": _texts,
    "int": _number,
    "Count": _count,
    "bool": _truth,
    "Seconds": _duration,
    "Moment": _date_or_share,
    "TimeSpec": _time,
    "tuple[FeatureSpec, ...]": _list_of(FeatureSpec, "[city, {column: tags, separator: '|'}]"),
    "tuple[NumberSpec, ...]": _list_of(NumberSpec, "[price, {column: cost, name: price_of_item}]"),
    "tuple[VectorSpec, ...]": _list_of(VectorSpec, "[image, {column: text, files: text.parquet, item: sku}]"),
    "dict[str, AdmissionSpec]": _admissions,
    "PositionSpec": _position,
    "NumberSpec": _short(NumberSpec, "column"),
    "PageKeySpec": _short(PageKeySpec, "columns"),
    "LabelSpec": _short(LabelSpec, "column"),
    "SequenceSpec": _short(SequenceSpec, "length"),
    "ExposureSpec": _whole(ExposureSpec),
    "EventSpec": _whole(EventSpec),
    "ProfileSpec": _whole(ProfileSpec),
    "CatalogueSpec": _whole(CatalogueSpec),
    "BehaviourSpec": _whole(BehaviourSpec),
    "SplitSpec": _whole(SplitSpec),
}


def _reader(field: Field[Any]) -> Callable[[Node, str], Any]:
    return READERS[str(field.type).removesuffix(" | None")]

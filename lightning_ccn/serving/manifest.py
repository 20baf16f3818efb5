"""`Manifest`: what package.json says of a package, and whether it can be true."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

FORMAT = 1
LATER_FIELDS = {  # of package.json, which older packages of this format do not have
    "reads_gaps": False,
    "gives_orders": False,
}
KINDS = ("integer", "text", "any", "row")  # of ids, see `IdLookup`
DTYPES = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class FeatureEntry:
    """A categorical feature.

    Attributes:
        name: Its name in a request, or of the array in items/.
        table: The table whose ids its values are.
        stored: The table in tables/ that has its rows.
        many: Whether it has any number of values, which are summed.
    """

    name: str
    table: str
    stored: str
    many: bool


@dataclass(frozen=True)
class NumberEntry:
    """A number, and the moments by which it is standardised."""

    name: str
    mean: float
    deviation: float


@dataclass(frozen=True)
class TableEntry:
    """The ids of a table.

    Attributes:
        rows: Number of rows, row 0 for the unknown id.
        kind: See `IdLookup`.
    """

    rows: int
    kind: str


@dataclass(frozen=True)
class FileEntry:
    """A file's size and SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What package.json says.

    Attributes:
        format: Of the package.
        version: Of lightning_ccn, which wrote it.
        system: Name of the model's class.
        checkpoint: Digest of the checkpoint's manifest: equal digests mean the same weights.
        exported: When, in UTC.
        table_dtype: Type of the stored rows: fp32, fp16 or int8.
        short_length, long_length: How many behaviours of each sequence are read.
        reads_long: Whether the system reads the long sequence.
        reads_gaps: Whether it reads how long ago behaviours were.
        gives_orders: Whether the model estimates orders too.
        user, item: Categorical features.
        numbers, page_numbers: Numbers of a candidate, and of the page.
        same_as_trigger: Item features that say whether a candidate is like the trigger.
        ratio_to_trigger: Numbers of items, of which a candidate has the logarithm of its ratio to the trigger's.
        category: The attribute by which the long sequence is searched; None: it is not.
        vectors: Names of the items' frozen vectors.
        crosses: Rows of Wide & Deep's table of crossed ids; None in other systems.
        tables: By name in the schema.
        files: By path in the package.
        measured: What the export measured on a split of the data, see `export.measure`.
    """

    format: int
    version: str
    system: str
    checkpoint: str
    exported: str
    table_dtype: str
    short_length: int
    long_length: int
    reads_long: bool
    reads_gaps: bool
    gives_orders: bool
    user: tuple[FeatureEntry, ...]
    item: tuple[FeatureEntry, ...]
    numbers: tuple[NumberEntry, ...]
    page_numbers: tuple[NumberEntry, ...]
    same_as_trigger: tuple[str, ...]
    ratio_to_trigger: tuple[str, ...]
    category: str | None
    vectors: tuple[str, ...]
    crosses: int | None
    tables: dict[str, TableEntry]
    files: dict[str, FileEntry]
    measured: dict[str, Any]

    def to_json(self) -> str:
        """The contents of package.json."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """The inverse of `to_json`.

        Raises:
            ValueError: A field is missing, unknown, of another type, or cannot be true; the message names it.
        """
        manifest: Manifest = typed({**LATER_FIELDS, **json.loads(text)}, Manifest, "")
        for wrong in _contradictions(manifest):
            raise ValueError(wrong)
        return manifest


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """What cannot be true of a package that the export wrote."""
    for name, least in (("short_length", 1), ("long_length", 0)):
        if (length := getattr(manifest, name)) < least:
            yield f"{name}: {length} is below {least}"
    if manifest.table_dtype not in DTYPES:
        yield f"table_dtype: {manifest.table_dtype!r} is none of {', '.join(DTYPES)}"
    for name, table in manifest.tables.items():
        if table.kind not in KINDS:
            yield f"tables.{name}.kind: {table.kind!r} is none of {', '.join(KINDS)}"
        if table.rows < 1:
            yield f"tables.{name}.rows: {table.rows} is below 1"
    if not manifest.item:
        yield "item: has no feature"
    for feature in (*manifest.user, *manifest.item):
        if feature.table not in manifest.tables:
            yield f"{feature.name}: {feature.table!r} is no table of the package"
    for number in (*manifest.numbers, *manifest.page_numbers):
        if not math.isfinite(number.mean) or not 0 < number.deviation < math.inf:
            yield f"{number.name}: a mean of {number.mean} and a deviation of {number.deviation} scale no number"
    single = [feature.name for feature in manifest.item if not feature.many]
    attributes = [*manifest.same_as_trigger, *([] if manifest.category is None else [manifest.category])]
    for name in attributes:
        if name not in single:
            yield f"{name}: is no feature of an item with one value"


def typed(value: Any, kind: Any, where: str) -> Any:
    """A value of a JSON document as a type: a dataclass, a tuple, a dict by text, an optional type, or a plain one.

    Args:
        value: The value.
        kind: The type, as a dataclass says it.
        where: Name of the field, for the message.

    Raises:
        ValueError: It is of another type.
    """
    if isinstance(kind, UnionType):
        return None if value is None else typed(value, next(of for of in get_args(kind) if of is not NoneType), where)
    if kind is Any:
        return value
    if is_dataclass(kind):
        return _object(value, kind, where)
    if get_origin(kind) is tuple and isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(typed(each, get_args(kind)[0], f"{where}[{at}]") for at, each in enumerate(value))
    if get_origin(kind) is dict and isinstance(value, dict):
        return {name: typed(each, get_args(kind)[1], f"{where}.{name}") for name, each in value.items()}
    number = kind is float and isinstance(value, int) and not isinstance(value, bool)
    if get_origin(kind) is None and (number or type(value) is kind):
        return float(value) if number else value
    raise ValueError(f"{where}: {value!r:.60} is not {getattr(kind, '__name__', kind)}")


def _object(value: Any, kind: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"{where or 'it'}: {value!r:.60} is no object")
    hints, names = get_type_hints(kind), [field.name for field in fields(kind)]
    if wrong := sorted({*value} ^ {*names}):
        raise ValueError(f"{', '.join(wrong)}: missing, or not known here{f' ({where})' if where else ''}")
    return kind(**{name: typed(value[name], hints[name], f"{where}.{name}".lstrip(".")) for name in names})

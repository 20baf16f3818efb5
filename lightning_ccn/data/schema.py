"""The schema of a dataset of page views: its embedding tables and features.

A dataset is a folder::

    schema.yaml            the `Schema`
    items.parquet          one row per item, row 0 the unknown item; column `item`, one per item attribute, and
                           one per number of `Schema.ratio_to_trigger`
    vocabulary/*.parquet   optional: the original ids of a table's rows 1, 2, ... as column `id`
    train/ validation/ test/   Parquet parts (`parts_of`), one row per page view
    vectors/*.npy          one row per item for each of `Schema.vectors`; row 0 is zeros
    stats.json             counts; written last, so a folder without it is incomplete

Every id in the folder is a row of a table; row 0 is the unknown id. A page row has the columns of `page_row`, one
column per profile feature, and one list column per per-item number.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, field, fields
from typing import Any

import yaml

from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.places import Place
from lightning_ccn.data.schema_problems import problems
from lightning_ccn.errors import DataError, OptionError

# Older checkpoints do not have these fields.
LATER_FIELDS = ("page_numbers", "same_as_trigger", "weight", "position_bias", "vectors", "ratio_to_trigger")


@dataclass(frozen=True)
class Table:
    """An embedding table.

    Attributes:
        rows: Number of rows, including row 0, the unknown id.
        mapping: How original ids became rows: `dense` (by a vocabulary, which later data extends) or
            `hash` (by a 64-bit hash, without a vocabulary).
    """

    rows: int
    mapping: str = "dense"


@dataclass(frozen=True)
class Feature:
    """A categorical feature: a column whose values are rows of a table.

    Attributes:
        name: Name of the column, in page rows (profile features) or in items.parquet (item attributes).
        table: Name of the table; features may share a table.
        many: Whether it is a list column, with any number of values, pooled by sum.
    """

    name: str
    table: str
    many: bool = False


@dataclass(frozen=True)
class Schema:
    """Tables and features of a dataset.

    Attributes:
        tables: Tables by name; one is `item`.
        user: Profile features, columns of page rows. The user id is one of them, if the log has it.
        attributes: Item attributes, columns of items.parquet (category, seller, ...), without the item id.
        numbers: Per-item numbers, float list columns of page rows; the reader standardises them.
        page_numbers: Numbers of the page or its user (age of the session, price band), float columns of page rows; the
            reader standardises them.
        same_as_trigger: Item features with one value, `item` or attributes. Each gives a target one more number: 1 if
            the target has the trigger's value, and 0 if not or if either is unknown.
        ratio_to_trigger: Numbers of items above 0, float columns of items.parquet. Each gives a target one more number:
            the logarithm of its number by the trigger's, and 0 if either is unknown.
        weight: A per-item number, a float list column of page rows: how much the item counts in the training loss, 1
            for as much as an item without a weight. None: all items count alike.
        position_bias: How many positions of a page get a bias of their own, which is added to the logit in training
            only; later positions share the last one. It takes the column `positions`, which counts from 1. None: none.
        vectors: Frozen vectors of items by name, with their widths: float32 or float16 [rows of the item table, width]
            in vectors/NAME.npy. A linear layer brings each to the width of an embedding.
        category: The attribute, with one value, by which the long sequence is searched (SIM's hard search).
            None: there is no category, and the search takes the most recent behaviours of any item.
        cut_long_length: The folder's long sequences are cut: of each page, only the most recent `cut_long_length` long
            behaviours of each category of its items are left, see `cut.LongCut`. None: they are whole. It says how
            pages were written, and not what a row means: schemas are equal without it, and a checkpoint does not
            keep it.

    Raises:
        DataError: The schema is inconsistent, see `problems`.
    """

    tables: dict[str, Table]
    user: tuple[Feature, ...]
    attributes: tuple[Feature, ...] = ()
    numbers: tuple[str, ...] = ()
    page_numbers: tuple[str, ...] = ()
    same_as_trigger: tuple[str, ...] = ()
    ratio_to_trigger: tuple[str, ...] = ()
    weight: str | None = None
    position_bias: int | None = None
    vectors: dict[str, int] = field(default_factory=dict)
    category: str | None = None
    cut_long_length: int | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for problem in self.problems():
            raise DataError(f"schema: {problem}")

    @property
    def item(self) -> tuple[Feature, ...]:
        """Item features: the id itself, then the attributes."""
        return (Feature(ITEM, ITEM), *self.attributes)

    def problems(self) -> list[str]:
        """One sentence per inconsistency of this schema."""
        return problems(self)

    def refuse_longer_search(self, long_length: int, folder: Place) -> None:
        """Checks that the folder has all behaviours that a search may ask for.

        Args:
            long_length: How many of the most recent long behaviours are to be kept for each category on the page.
            folder: The folder that this is the schema of, for the message.

        Raises:
            OptionError: The folder was cut to fewer.
        """
        if self.cut_long_length is not None and long_length > self.cut_long_length:
            raise OptionError(
                f"data.long_length is {long_length}, but the long sequences of {folder} are cut to the most recent "
                f"{self.cut_long_length} behaviours of each category (cut_long_length in schema.yaml): make it "
                f"{self.cut_long_length} or less, or use the folder that this one was cut from"
            )

    def to_dict(self) -> dict[str, Any]:
        """Tables and features as plain values, as stored in checkpoints; without `cut_long_length`."""
        plain = asdict(self)
        del plain["cut_long_length"]
        for name in LATER_FIELDS:
            if not plain[name]:
                del plain[name]
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    def to_yaml(self) -> str:
        """The contents of schema.yaml."""
        mark = {} if self.cut_long_length is None else {"cut_long_length": self.cut_long_length}
        return yaml.safe_dump({**self.to_dict(), **mark}, sort_keys=False)

    @staticmethod
    def from_dict(plain: dict[str, Any], source: str = "schema") -> Schema:
        """The inverse of `to_dict`; also of the values in schema.yaml.

        Raises:
            DataError: A field is missing, unknown or of the wrong type; the message starts with `source`.
        """
        try:
            known = [field.name for field in fields(Schema)]
            for name in plain:
                if name not in known:
                    raise DataError(f"{name}: no such field; the fields are {', '.join(known)}")
            for name in ("tables", "user"):
                if name not in plain:
                    raise DataError(f"{name}: missing; a schema needs tables and user")
            for name, what in (("category", "an item attribute"), ("weight", "a column")):
                if not isinstance(plain.get(name), str | None):
                    raise DataError(f"{name}: {plain[name]!r} is not the name of {what}")
            for name, width in _items(plain, "vectors"):
                if type(width) is not int:
                    raise DataError(f"vectors.{name}: {width!r} is not a whole number")
            for name in ("position_bias", "cut_long_length"):
                if type(plain.get(name)) not in (int, type(None)):  # true is an int for isinstance
                    raise DataError(f"{name}: {plain[name]!r} is not a whole number")
            return Schema(
                tables={str(name): _entry(Table, table, f"tables.{name}") for name, table in _items(plain, "tables")},
                user=tuple(_entry(Feature, feature, f"user.{at}") for at, feature in _items(plain, "user")),
                attributes=tuple(
                    _entry(Feature, feature, f"attributes.{at}") for at, feature in _items(plain, "attributes")
                ),
                numbers=_names(plain, "numbers"),
                page_numbers=_names(plain, "page_numbers"),
                same_as_trigger=_names(plain, "same_as_trigger"),
                ratio_to_trigger=_names(plain, "ratio_to_trigger"),
                weight=plain.get("weight"),
                position_bias=plain.get("position_bias"),
                vectors={str(name): width for name, width in _items(plain, "vectors")},
                category=plain.get("category"),
                cut_long_length=plain.get("cut_long_length"),
            )
        except DataError as error:
            raise DataError(f"{source}: {error}") from None


def _items(plain: dict[str, Any], name: str) -> list[tuple[Any, Any]]:
    """The entries of a mapping (`tables`, `vectors`) or of a list (the other fields), each with its key or index."""
    value, kind = plain.get(name), dict if name in ("tables", "vectors") else list
    if value is None:
        return []
    if not isinstance(value, kind):
        raise DataError(f"{name}: {value!r} is not a {'mapping' if kind is dict else 'list'}")
    return list(value.items() if isinstance(value, dict) else enumerate(value))


def _names(plain: dict[str, Any], name: str) -> tuple[str, ...]:
    return tuple(str(value) for _, value in _items(plain, name))


def _entry(kind: type, plain: Any, where: str) -> Any:
    """A `Table` or `Feature` from plain values."""
    known = {field.name: field for field in fields(kind)}
    if not isinstance(plain, dict):
        raise DataError(f"{where}: {plain!r} is not a mapping of {', '.join(known)}")
    for name, value in plain.items():
        if name not in known:
            raise DataError(f"{where}.{name}: no such field; the fields are {', '.join(known)}")
        if type(value).__name__ != known[name].type:
            raise DataError(f"{where}.{name}: {value!r} is not of type {known[name].type}")
    for name, entry in known.items():
        if name not in plain and entry.default is MISSING:
            raise DataError(f"{where}.{name}: missing")
    return kind(**plain)


def read_schema(folder: Place) -> Schema:
    """Reads schema.yaml of a dataset folder.

    Raises:
        DataError: The file is missing, is not YAML, or is not a consistent schema.
    """
    path = folder / "schema.yaml"
    try:
        plain = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; a dataset folder needs one") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or 2024-13-45
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(plain, dict):
        raise DataError(f"{path}: expected a mapping with tables and user, got {type(plain).__name__}")
    return Schema.from_dict(plain, source=str(path))

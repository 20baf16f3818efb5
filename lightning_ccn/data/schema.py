"""What a dataset of page views holds: tables, features, columns. The one place that names columns.

A dataset is a folder::

    schema.yaml            this file's `Schema`
    items.parquet          one row an item, row 0 the unknown item; one int column per item attribute
    vocabulary/*.parquet   one file a table with a vocabulary: column `id`, row by row (optional)
    train/ validation/ test/   Parquet parts, one row a page view
    stats.json             counts; written last, so a folder without it is not whole

Every id in the folder is a row of a table: dense, 0 means unknown. A page row has the columns below, one column
for each profile feature, and one list column for each per-item number.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

SPLITS = ("train", "validation", "test")

# A page view's columns. Lists of one page that stand under one heading have equal lengths.
PAGE_ID = "page_id"  # int64, unique in the folder
TIME = "time"  # int64, seconds since 1970
TRIGGER = "trigger"  # int64, an item row; 0: the page has no trigger
ITEMS, CLICKS, PURCHASES, POSITIONS = "items", "clicks", "purchases", "positions"  # the exposed items
SHORT_ITEMS, SHORT_TIMES = "short_items", "short_times"  # recent behaviours, oldest first
LONG_ITEMS, LONG_TIMES = "long_items", "long_times"  # the long history, oldest first

# What only a synthetic world knows. In the test split alone; the reader never asks for these columns.
TRUE_PROBABILITY = "click_probability"  # everything known, hidden intent and page clickiness included
ATTAINABLE_PROBABILITY = "attainable_probability"  # the same with what no log shows integrated out

ITEM = "item"  # the item table, and the item feature that is the id itself

RESERVED = frozenset(
    {PAGE_ID, TIME, TRIGGER, ITEMS, CLICKS, PURCHASES, POSITIONS, SHORT_ITEMS, SHORT_TIMES, LONG_ITEMS}
    | {LONG_TIMES, TRUE_PROBABILITY, ATTAINABLE_PROBABILITY}
)


class DataError(ValueError):
    """A dataset, or a file that should become one, is not what it should be: says where, what, and the remedy."""


@dataclass(frozen=True)
class Table:
    """An embedding table.

    Attributes:
        rows: number of rows, the unknown row 0 included.
        mapping: how original ids became rows: `dense` (a vocabulary, which later data extends) or
            `hash` (a 64-bit mix modulo rows, for ids without a vocabulary).
    """

    rows: int
    mapping: str = "dense"


@dataclass(frozen=True)
class Feature:
    """A categorical feature: a column of rows of one table.

    Attributes:
        name: the column, in page rows (profile features) or in items.parquet (item attributes).
        table: the table that it indexes; several features may share one.
        many: a list column with any number of values (profile features only), pooled by sum.
    """

    name: str
    table: str
    many: bool = False


@dataclass(frozen=True)
class Schema:
    """Tables and features of a dataset.

    Attributes:
        tables: by name; must hold `item`.
        user: profile features of a page row. The user id is one of them, where the log has it.
        attributes: item attributes, columns of items.parquet (category, seller, ...), without the id itself.
        numbers: per-item numbers of a page row (list columns, float), standardised by the reader.
        category: the attribute by which the long sequence is searched (SIM's hard search);
            None: the log has no category, and the search takes the most recent behaviours of any.
    """

    tables: dict[str, Table]
    user: tuple[Feature, ...]
    attributes: tuple[Feature, ...] = ()
    numbers: tuple[str, ...] = ()
    category: str | None = None

    def __post_init__(self) -> None:
        for problem in self.problems():
            raise DataError(f"schema: {problem}")

    @property
    def item(self) -> tuple[Feature, ...]:
        """Item features: the id itself, then the attributes."""
        return (Feature(ITEM, ITEM), *self.attributes)

    def problems(self) -> list[str]:
        """What is inconsistent in this schema, in words; empty when nothing is."""
        found = []
        if ITEM not in self.tables:
            found.append(f"tables has no '{ITEM}': every dataset needs the item table")
        names = [f.name for f in (*self.user, *self.item)] + list(self.numbers)
        found += [f"the name '{n}' is used twice: names must differ" for n in sorted(set(names)) if names.count(n) > 1]
        found += [f"the name '{n}' is a column of every page row: choose another" for n in names if n in RESERVED]
        for feature in (*self.user, *self.attributes):
            if feature.table not in self.tables:
                found.append(f"feature '{feature.name}' names table '{feature.table}', which is not in tables")
        found += [
            f"attribute '{f.name}' is a list: an item has one value of each attribute"
            for f in self.attributes
            if f.many
        ]
        for name, table in self.tables.items():
            if table.rows < 2:
                found.append(
                    f"table '{name}' has {table.rows} rows: row 0 is the unknown one, so at least 2 are needed"
                )
            if table.mapping not in ("dense", "hash"):
                found.append(f"table '{name}' has mapping '{table.mapping}': choose dense or hash")
        if self.category is not None and self.category not in {f.name for f in self.attributes}:
            found.append(f"category names '{self.category}', which is not an item attribute")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as they stand in schema.yaml and in checkpoints."""
        plain = asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}

    @staticmethod
    def from_dict(plain: dict[str, Any], source: str = "schema") -> Schema:
        """The inverse of `to_dict`.

        Raises:
            DataError: a field is missing, unknown or of the wrong type; `source` names where it came from.
        """
        try:
            known = [field.name for field in fields(Schema)]
            for name in plain:
                if name not in known:
                    raise DataError(f"{name}: no such field; the fields are {', '.join(known)}")
            for name in ("tables", "user"):
                if name not in plain:
                    raise DataError(f"{name}: missing; a schema needs tables and user")
            return Schema(
                tables={str(name): _entry(Table, table, f"tables.{name}") for name, table in _items(plain, "tables")},
                user=tuple(_entry(Feature, feature, f"user.{at}") for at, feature in _items(plain, "user")),
                attributes=tuple(
                    _entry(Feature, feature, f"attributes.{at}") for at, feature in _items(plain, "attributes")
                ),
                numbers=tuple(str(name) for _, name in _items(plain, "numbers")),
                category=plain.get("category"),
            )
        except DataError as error:
            raise DataError(f"{source}: {error}") from None


def _items(plain: dict[str, Any], name: str) -> list[tuple[Any, Any]]:
    """The entries of a mapping (`tables`) or of a list (the others), each with its name or place."""
    value, kind = plain.get(name), dict if name == "tables" else list
    if value is None:
        return []
    if not isinstance(value, kind):
        raise DataError(f"{name}: {value!r} is not a {'mapping' if kind is dict else 'list'}")
    return list(value.items() if isinstance(value, dict) else enumerate(value))


def _entry(kind: type, plain: Any, where: str) -> Any:
    """A `Table` or `Feature` of its plain fields."""
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


@dataclass
class SplitStats:
    """Counts of one split, as they stand in stats.json. What an older file does not count is None."""

    pages: int = 0
    items: int = 0
    clicks: int = 0
    first_time: int | None = None
    last_time: int | None = None
    pages_with_trigger: int | None = 0
    pages_with_short: int | None = 0  # behaviours in the short sequence
    pages_with_long: int | None = 0
    pages_of_two_labels: int | None = 0  # clicked items and unclicked ones
    pages_of_two_clicks: int | None = 0  # or more

    @property
    def lacks(self) -> dict[str, str]:
        """What systems use and no page of the split has, in words, by name; nothing of a split without pages."""
        counts = {
            "trigger": (self.pages_with_trigger, "no page with a trigger"),
            "short": (self.pages_with_short, "no page with short behaviours"),
            "long": (self.pages_with_long, "no page with long behaviours"),
            "two_labels": (self.pages_of_two_labels, "no page with both clicked and unclicked items"),
            "two_clicks": (self.pages_of_two_clicks, "no page with two clicked items"),
        }
        return {name: words for name, (count, words) in counts.items() if self.pages and count == 0}

    @staticmethod
    def from_dict(plain: dict[str, Any], source: str) -> SplitStats:
        """The counts of stats.json; raises ValueError for one that is unknown or no number."""
        known = [field.name for field in fields(SplitStats)]
        for name, value in plain.items():
            if name not in known:
                raise ValueError(f"{source}.{name}: no such count")
            if value is not None and not isinstance(value, int):
                raise ValueError(f"{source}.{name}: {value!r} is not a count")
        for name in ("pages", "items", "clicks"):
            if plain.get(name) is None:
                raise ValueError(f"{source}.{name}: missing")
        return SplitStats(**{name: plain.get(name) for name in known})  # type: ignore[arg-type]


class Dataset:
    """A dataset folder, opened: what models and readers need to know before the first page is read.

    Attributes:
        folder: where it is.
        schema: its tables and features.
        splits: counts by split.
        numbers: by per-item number, its mean and standard deviation over training items.
        digests: by table with a vocabulary, the digest of that.
    """

    # Not a dataclass: the command line would take one apart into options of its own.
    def __init__(
        self,
        folder: Path,
        schema: Schema,
        splits: dict[str, SplitStats],
        numbers: dict[str, tuple[float, float]],
        digests: dict[str, str],
    ) -> None:
        self.folder, self.schema, self.splits = folder, schema, splits
        self.numbers, self.digests = numbers, digests

    @property
    def clicked_per_page(self) -> float:
        """Mean clicked items of a training page: N1 of Eq. 9."""
        train = self.splits["train"]
        return train.clicks / max(train.pages, 1)

    @property
    def unclicked_per_page(self) -> float:
        """Mean unclicked items of a training page: N0 of Eq. 9."""
        train = self.splits["train"]
        return (train.items - train.clicks) / max(train.pages, 1)

    def parts(self, split: str) -> list[Path]:
        """The Parquet parts of a split, in name order."""
        return sorted((self.folder / split).glob("*.parquet"))

    @staticmethod
    def open(folder: str | Path) -> Dataset:
        """Opens a dataset folder.

        Raises:
            DataError: the folder, or a file of it, is missing or malformed.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; make one with `ccn data world {folder}` or `ccn data convert`")
        for name in ("schema.yaml", "items.parquet", "stats.json"):
            if not (folder / name).is_file():
                raise DataError(
                    f"{folder}: {name} is missing, so this is not a whole dataset folder; "
                    "prepare it again, or run `ccn data check` on a folder that another job wrote"
                )
        schema = read_schema(folder)
        path, remedy = folder / "stats.json", f"`ccn data check {folder} --write_stats true` writes it anew"
        try:
            stats = json.loads(path.read_text())
            dataset = Dataset(
                folder=folder,
                schema=schema,
                splits={
                    split: SplitStats.from_dict(stats["splits"].get(split, {}), f"splits.{split}") for split in SPLITS
                },
                numbers={name: (float(mean), float(std)) for name, (mean, std) in stats["numbers"].items()},
                digests=dict(stats["digests"]),
            )
        except KeyError as error:
            raise DataError(f"{path}: {error.args[0]}: missing; {remedy}") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: {error}; {remedy}") from None
        for name in schema.numbers:
            if name not in dataset.numbers:
                raise DataError(f"{path}: numbers.{name}: missing, and schema.yaml has it; {remedy}")
        return dataset


def read_schema(folder: Path) -> Schema:
    """Reads schema.yaml of a dataset folder; raises DataError."""
    path = folder / "schema.yaml"
    try:
        plain = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; a dataset folder needs one") from None
    except yaml.YAMLError as error:
        raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(plain, dict):
        raise DataError(f"{path}: expected a mapping with tables and user, got {type(plain).__name__}")
    return Schema.from_dict(plain, source=str(path))

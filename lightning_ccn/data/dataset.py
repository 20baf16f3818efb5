"""`Dataset`: an open dataset folder, with its schema and the counts of its splits."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightning_ccn.data.schema import Schema, read_schema
from lightning_ccn.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass
class SplitStats:
    """Counts of one split, as stored in stats.json; None: an older file without this count.

    Attributes:
        pages: Number of page views.
        items: Number of exposed items.
        clicks: Number of clicked items.
        first_time, last_time: Times of the first and last page view, seconds since 1970; None for an empty split.
        pages_with_trigger: Pages that were entered by a click on an item.
        pages_with_short: Pages with at least one behaviour in the short sequence.
        pages_with_long: Pages with at least one behaviour in the long sequence.
        pages_of_two_labels: Pages with both clicked and unclicked items.
        pages_of_two_clicks: Pages with two or more clicked items.
    """

    pages: int = 0
    items: int = 0
    clicks: int = 0
    first_time: int | None = None
    last_time: int | None = None
    pages_with_trigger: int | None = 0
    pages_with_short: int | None = 0
    pages_with_long: int | None = 0
    pages_of_two_labels: int | None = 0
    pages_of_two_clicks: int | None = 0

    @property
    def missing_inputs(self) -> dict[str, str]:
        """Inputs that no page of the split has: name -> "no page with ..."; empty for a split without pages."""
        counts = {
            "trigger": (self.pages_with_trigger, "no page with a trigger"),
            "short": (self.pages_with_short, "no page with short behaviours"),
            "long": (self.pages_with_long, "no page with long behaviours"),
            "two_labels": (self.pages_of_two_labels, "no page with both clicked and unclicked items"),
            "two_clicks": (self.pages_of_two_clicks, "no page with two clicked items"),
        }
        return {name: lack for name, (count, lack) in counts.items() if self.pages and count == 0}

    @staticmethod
    def from_dict(plain: dict[str, Any], source: str) -> SplitStats:
        """Reads the counts of one split from stats.json.

        Args:
            plain: The split's entry of stats.json.
            source: Name of the entry, for messages.

        Raises:
            ValueError: A count is unknown, missing or not an integer.
        """
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
    """An open dataset folder: what models and readers need to know before they read a page.

    Attributes:
        folder: Path of the folder.
        schema: Tables and features.
        splits: Counts by split.
        numbers: Mean and standard deviation of each per-item number over the training items.
        digests: Digest of the vocabulary of each table that has one.
    """

    # Not a dataclass: the command line would turn the fields of a dataclass into options.
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
        """Mean number of clicked items per training page: N1 of Eq. 9 of the CCN paper."""
        train = self.splits["train"]
        return train.clicks / max(train.pages, 1)

    @property
    def unclicked_per_page(self) -> float:
        """Mean number of unclicked items per training page: N0 of Eq. 9 of the CCN paper."""
        train = self.splits["train"]
        return (train.items - train.clicks) / max(train.pages, 1)

    def parts(self, split: str) -> list[Path]:
        """The Parquet files of a split, ordered by name."""
        return sorted((self.folder / split).glob("*.parquet"))

    @staticmethod
    def open(folder: str | Path) -> Dataset:
        """Opens a dataset folder.

        Raises:
            DataError: The folder or one of its files is missing or malformed.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder; make one with `ccn data world {folder}` or `ccn data convert`")
        for name in ("schema.yaml", "items.parquet", "stats.json"):
            if not (folder / name).is_file():
                raise DataError(
                    f"{folder}: {name} is missing, so this dataset folder is incomplete; "
                    "prepare it again, or run `ccn data check` on a folder that another job wrote"
                )
        schema = read_schema(folder)
        path, remedy = folder / "stats.json", f"`ccn data check {folder} --write_stats true` writes it"
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
                raise DataError(f"{path}: numbers.{name}: missing, but schema.yaml has it; {remedy}")
        return dataset

"""A dataset folder, opened: its schema and the counts of its splits."""

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
    def missing_inputs(self) -> dict[str, str]:
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

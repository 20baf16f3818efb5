"""`Dataset`: an open dataset folder, with its schema and the counts of its splits."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lightning_ccn.data.fingerprint import changes, combined, file_digests
from lightning_ccn.data.parquet import parts_of
from lightning_ccn.data.places import Place, place
from lightning_ccn.data.schema import Schema, read_schema
from lightning_ccn.data.store_path import StorePath
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
        folder: Path of the folder, or its address in a store.
        schema: Tables and features.
        splits: Counts by split.
        numbers: Mean and standard deviation of each per-item number over the training items, and of each page's number
            over the training pages. A checkpoint replaces them by its own: they are a part of the model.
        digests: Digest of the vocabulary of each table that has one.
        files: Digest of each file when stats.json was written, by path in the folder; None in an older stats.json.
        cut_of: Fingerprint of each split of the folder that this one was cut from; empty if it is not a cut copy.
        same_ids: Whether the user vouches that the rows of tables without a vocabulary mean the same ids as in the
            checkpoint that the data is used with.
    """

    # Not a dataclass: the command line would turn the fields of a dataclass into options.
    def __init__(
        self,
        folder: Place,
        schema: Schema,
        splits: dict[str, SplitStats],
        numbers: dict[str, tuple[float, float]],
        digests: dict[str, str],
        files: dict[str, str] | None = None,
        cut_of: dict[str, str] | None = None,
    ) -> None:
        self.folder, self.schema, self.splits = folder, schema, splits
        self.numbers, self.digests, self.files, self.cut_of = numbers, digests, files, cut_of or {}
        self.same_ids = False
        self._fingerprints: dict[str, str] = {}

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

    @property
    def tables_without_ids(self) -> list[str]:
        """Dense tables without a vocabulary: nothing in the folder says which original id each of their rows means."""
        dense = [name for name, table in self.schema.tables.items() if table.mapping == "dense"]
        return [name for name in dense if name not in self.digests]

    def parts(self, split: str) -> list[Path] | list[StorePath]:
        """The Parquet files of a split, ordered by path.

        Raises:
            DataError: The split's folder has a file that looks like data but is not read.
        """
        return parts_of(self.folder / split)

    def fingerprint(self, split: str) -> str:
        """A digest of the files of a split, see `fingerprint.file_digest`. Equal digests mean equal batches.

        A cut copy of a folder has the digest of the folder: batches are the same, and in the same order.

        Raises:
            DataError: A file has changed since stats.json was written, or cannot be read.
        """
        if split not in self._fingerprints:
            now = {name: d for name, d in file_digests(self.folder, [split]).items() if name.startswith(f"{split}/")}
            self.refuse_changes(f"{split}/", now)
            self._fingerprints[split] = self.cut_of.get(split) or combined(now)
        return self._fingerprints[split]

    def refuse_changes(self, prefix: str, now: dict[str, str]) -> None:
        """Compares the files whose path starts with `prefix` with those that stats.json counted.

        Args:
            prefix: Beginning of the paths of the files to compare.
            now: Digests of those files by path.

        Raises:
            DataError: A file was changed, added or removed.
        """
        if self.files is None:
            return
        found = changes({name: digest for name, digest in self.files.items() if name.startswith(prefix)}, now)
        if found:
            more = f" and {len(found) - 3:,} more" if len(found) > 3 else ""
            raise DataError(
                f"{self.folder}: {', '.join(found[:3])}{more} after stats.json was written, so its counts are of other "
                f"data; `ccn data check {self.folder} --write_stats true` checks the files and counts them again"
            )

    @staticmethod
    def open(folder: str | Place, cache: Path | None = None) -> Dataset:
        """Opens a dataset folder.

        Args:
            folder: Path of the folder, or its address in a store, such as `s3://bucket/folder`.
            cache: Where row groups of a store are kept; None: each is read again whenever it is needed.

        Raises:
            DataError: The folder or one of its files is missing or malformed, or a store cannot be read.
        """
        folder = place(folder)
        if isinstance(folder, StorePath):
            folder = folder.cached_in(cache)
        if not folder.is_dir():
            if isinstance(folder, StorePath):
                folder.refuse_missing()
            raise DataError(
                f"{folder}: no such folder; data.folder names a dataset folder, which `ccn data build` and "
                "`ccn data convert` make from a log and `ccn data world` makes up"
            )
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
                files=dict(stats["files"]) if "files" in stats else None,
                cut_of={str(split): str(digest) for split, digest in dict(stats.get("cut_of", {})).items()},
            )
        except KeyError as error:
            raise DataError(f"{path}: {error.args[0]}: missing; {remedy}") from None
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(f"{path}: {error}; {remedy}") from None
        for name in (*schema.numbers, *schema.page_numbers):
            if name not in dataset.numbers:
                raise DataError(f"{path}: numbers.{name}: missing, but schema.yaml has it; {remedy}")
            mean, std = dataset.numbers[name]
            if not (math.isfinite(mean) and 0 < std < math.inf):
                raise DataError(f"{path}: numbers.{name}: the mean is {mean:g} and the deviation {std:g}; {remedy}")
        if (cut_to := stats.get("cut_long_length")) != schema.cut_long_length:
            was, now_is = (str(mark or "not there") for mark in (cut_to, schema.cut_long_length))
            raise DataError(
                f"{folder / 'schema.yaml'}: cut_long_length is {now_is}, and was {was} when stats.json was written: "
                f"correct it, or let `ccn data check {folder} --write_stats true` take the folder as it is"
            )
        now = file_digests(folder, ())
        for prefix in ("items.parquet", "vocabulary/", "vectors/"):
            dataset.refuse_changes(prefix, {name: d for name, d in now.items() if name.startswith(prefix)})
        return dataset

"""What a build did: counts, an example of each reason for a drop, shares of unknown ids, time by stage."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lightning_ccn.data.build.engine import Engine
from lightning_ccn.data.convert.pages import ConversionReport
from lightning_ccn.data.dataset import SPLITS, SplitStats
from lightning_ccn.data.places import Place
from lightning_ccn.errors import DataError


@dataclass
class BuildReport(ConversionReport):
    """Counts of a build; `str` formats them for people.

    Attributes:
        examples: By kind and reason, one thing that was dropped.
        unknown: By feature, then by split: how many ids there are, and how many of them are unknown (row 0).
        folder: The dataset folder.
        splits: Counts of each split of the folder.
        built: Whether the folder had to be built.
        checked: Whether it had to be checked: an earlier build may have been interrupted just before.
        faults: Errors that `ccn data check` found in the folder.
        positions: What the log's positions became; empty if they stayed as they were.
        warnings: What looks wrong, though it may be right.
    """

    examples: dict[str, dict[str, str]] = field(default_factory=dict)
    unknown: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)
    folder: Place = Path()
    splits: dict[str, SplitStats] = field(default_factory=dict)
    built: bool = True
    checked: bool = False
    faults: list[str] = field(default_factory=list)
    positions: str = ""
    warnings: list[str] = field(default_factory=list)

    def dropped(self, kind: str, engine: Engine, query: str) -> int:
        """Counts what was dropped by reason.

        Args:
            kind: What was dropped: impressions, events, ...
            engine: The engine.
            query: A query with the columns reason, count and example; reason is null for what is kept.

        Returns:
            The number of all that were dropped.
        """
        total = 0
        for row in sorted(engine.rows(query), key=lambda row: str(row["reason"])):
            if row["reason"] is not None:
                self.drop(kind, row["reason"], row["count"], row["example"])
                total += int(row["count"])
        return total

    def broken_lines(self, kind: str, engine: Engine, view: str) -> None:
        """Counts the lines of CSV files that could not be read.

        Args:
            kind: What the lines are: impressions, events, ...
            engine: The engine.
            view: A view of files, of which one table was made.
        """
        for path, line, lines, why in engine.broken(view):
            self.add(kind, "read", "total", lines)
            self.drop(kind, "line of the CSV file is broken", lines, f"{path}: row {line}: {why}")

    def no_numbers(
        self,
        engine: Engine,
        table: str,
        columns: Mapping[str, tuple[str, str]],
        where: str,
        wanted: str = "a number",
    ) -> None:
        """Counts values that should be numbers and are none.

        Args:
            engine: The engine.
            table: A table of it.
            columns: By name of a number, the columns of the table with the number, and with what is none.
            where: The key of the specification that names the numbers.
            wanted: What they should be.

        Raises:
            DataError: No value of a number is one.
        """
        for name, (number, odd) in columns.items():
            query = f"SELECT COUNT({number}) AS good, COUNT({odd}) AS bad, MIN({odd}) AS example FROM {table}"
            row = engine.rows(query)[0]
            if row["bad"] and not row["good"]:
                raise DataError(
                    f"{where}: none of the {row['bad']:,} values of '{name}' is {wanted}, such as {row['example']!r}; "
                    "write numbers such as 12.5, or leave the column out"
                )
            if row["bad"]:
                self.drop(
                    "numbers",
                    f"{name}: {wanted.replace('a ', 'no ', 1)}, so it counts as unknown",
                    row["bad"],
                    row["example"],
                )

    def drop(self, kind: str, reason: str, count: int, example: str) -> None:
        """Counts things that were dropped for one reason."""
        self.add(kind, "dropped", reason, count)
        self.examples.setdefault(kind, {}).setdefault(reason, example)

    def add_ids(self, split: str, feature: str, rows: np.ndarray) -> None:
        """Counts the unknown ids among table rows of a split."""
        ids, unknown = self.unknown.setdefault(feature, {}).get(split, (0, 0))
        self.unknown[feature][split] = (ids + len(rows), unknown + int((rows == 0).sum()))

    def to_json(self) -> str:
        """Counts and shares, as stored in report.json; examples, which name rows of files, are in build.json."""
        plain = {**self.counts, "unknown": self.unknown}
        return json.dumps(plain, indent=2) + "\n"

    def __str__(self) -> str:
        if not self.built:
            done = "it was checked now" if self.checked else "nothing to do"
            return f"{self.folder}: is built from this specification and these files already; {done}"
        lines = [super().__str__()]
        for kind, reasons in self.examples.items():
            lines += [f"dropped {kind}, {reason}: for example {example}" for reason, example in reasons.items()]
        lines += [self.positions] if self.positions else []
        lines += [f"warning: {each}" for each in self.warnings]
        lines.append(f"{'unknown ids':<24}" + "".join(f"{split:>12}" for split in SPLITS))
        for feature, by_split in self.unknown.items():
            shares = [by_split.get(split, (0, 0)) for split in SPLITS]
            lines.append(f"{feature:<24}" + "".join(f"{n and zeros / n:>12.2%}" for n, zeros in shares))
        lines.append(f"{'split':<12}{'pages':>12}{'items':>12}{'items a page':>14}{'clicks':>12}")
        for split, stats in self.splits.items():
            a_page = stats.items / max(stats.pages, 1)
            lines.append(f"{split:<12}{stats.pages:>12,}{stats.items:>12,}{a_page:>14.1f}{stats.clicks:>12,}")
        return "\n".join([*lines, f"written to {self.folder}"])


class Progress:
    """Says how long each stage took.

    Args:
        say: Takes a line.
        statements: How many statements an earlier process has run, and this one, so far.
    """

    def __init__(self, say: Callable[[str], None], statements: Callable[[], tuple[int, int]] = lambda: (0, 0)) -> None:
        self._say, self._statements = say, statements

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int], None]]:
        """A stage; the block calls the function with the number of rows of the stage."""
        start, rows, (before, run) = time.monotonic(), [0], self._statements()

        def count(number: int) -> None:
            rows[0] += number

        yield count
        now_before, now_run = self._statements()
        if now_before > before and now_run == run:
            self._say(f"{name:<36}{rows[0]:>14,} rows, done before the interruption")
            return
        seconds = max(time.monotonic() - start, 1e-3)
        self._say(f"{name:<36}{rows[0]:>14,} rows{seconds:>9.1f} s{rows[0] / seconds:>14,.0f} rows/s")

"""The report of `ccn data check`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lightning_ccn.data.dataset import SplitStats
from lightning_ccn.data.places import Place
from lightning_ccn.data.rules import SHOWN


class Messages:
    """Messages grouped by kind, in the order of each kind's first message."""

    def __init__(self) -> None:
        self._shown: dict[Hashable, list[str]] = {}
        self._count: dict[Hashable, int] = {}

    def add(self, kind: Hashable, lines: Sequence[str], count: int | None = None) -> None:
        """Adds messages of one kind. If `lines` has only the first ones, `count` is their full number."""
        shown = self._shown.setdefault(kind, [])
        shown += lines[: SHOWN - len(shown)]
        self._count[kind] = self._count.get(kind, 0) + (len(lines) if count is None else count)

    def lines(self) -> list[str]:
        """At most `SHOWN` lines per kind, then a line with the number of the others."""
        found = []
        for kind, shown in self._shown.items():
            found += shown
            if rest := self._count[kind] - len(shown):
                found.append(f"... and {rest:,} more like the last one")
        return found


@dataclass
class CheckReport:
    """The result of `check`; `str` formats it for people.

    Attributes:
        folder: The folder that was checked.
        splits: Counts of each split, without row groups that have errors.
        figures: Lines of tables: what a page tells of its own clicks, unknown ids, rows of tables that are used.
        notes: Facts that are neither good nor bad, such as collisions in hash tables; one line each.
        warnings: What works but is probably a mistake; one line each.
        errors: What must be fixed before the folder can be used; one line each.
        unwritten: Why stats.json could not be written, though nothing is wrong with the data; "" otherwise.
        counted: Counts by day, by length and by column, see `Signs.plain`; empty if no page could be read.
    """

    folder: Place
    splits: dict[str, SplitStats] = field(default_factory=dict)
    figures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    unwritten: str = ""
    counted: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """The report as values that JSON has, for a page that shows it."""
        return {
            "folder": str(self.folder),
            "splits": {split: asdict(counts) for split, counts in self.splits.items()},
            "notes": self.notes,
            "warnings": self.warnings,
            "errors": [*self.errors, *([self.unwritten] if self.unwritten else [])],
            **self.counted,
        }

    def __str__(self) -> str:
        lines = [str(self.folder)]
        if self.splits:
            lines.append(f"{'split':<11}{'pages':>13}{'items':>15}{'clicks':>13}{'CTR':>8}  time (UTC)")
        for split, counts in self.splits.items():
            ctr = f"{counts.clicks / counts.items:.4f}" if counts.items else "-"
            span = " to ".join(utc(t) for t in (counts.first_time, counts.last_time) if t is not None)
            numbers = f"{counts.pages:>13,}{counts.items:>15,}{counts.clicks:>13,}{ctr:>8}"
            lines.append(f"{split:<11}{numbers}  {span}".rstrip())
        lines += self.figures
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [f"error: {text}" for text in self.errors]
        if self.unwritten:
            return "\n".join([*lines, f"error: {self.unwritten}", "valid, but stats.json was not written"])
        return "\n".join([*lines, "not a valid dataset" if self.errors else "valid"])


def utc(seconds: int) -> str:
    """Formats seconds since 1970 as a date and time."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"

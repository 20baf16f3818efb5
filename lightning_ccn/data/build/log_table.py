"""A table of a log as `ccn data init` sees it: what the names of its columns and its first rows suggest."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from lightning_ccn.data.build.log_files import LISTS, LogFiles

# Words in the names of tables and of columns, by what they probably are; the first that fits wins.
TABLES = {
    "exposures": "impression|exposure|display|shown|inview|views?$",
    "users": "user|profile|member|customer|visitor",
    "items": "item|product|article|news|catalog|sku|offer",
    "events": "event|click|order|purchase|behaviour|behavior|action|history|transaction",
}
COLUMNS = {
    "user": "user|^uid|^who$|member|(^|_)cust(_|$)|customer|visitor|client",
    "trigger": "trigger|(^|_)trig(_|$)|entry|referrer|source_item|from_item",
    "page": r"page|view|request|(^|_)req(_|$)|impression_?id|search_?id",
    "session": "session|visit",
    "clicks": "click",
    "purchases": "purchase|bought|ordered|conversion",
    "time": r"time|date|(^|_)(at|ts)$|_ms$|shown|when",
    "position": "position|slot|rank|^pos",
    "type": "type|kind|^what$|action|^event",
    "item": "item|sku|product|article|news|offer|(^|_)ad(_|$)",
}
TIME = r"(^|_)(at|ts|time|timestamp|date|datetime)$"  # the end of a name, whatever it begins with: clicked_at
LABELS = f"{COLUMNS['clicks']}|{COLUMNS['purchases']}|order"
SHOWN = "in_?view|shown|displayed|exposed|impress"  # a list with such a name has the items of a page
OF_A_ROW = ("user", "trigger", "page", "session")  # roles of columns with one value a row


@dataclass
class LogTable:
    """A table of a log.

    Attributes:
        pattern: What `files` of a specification says.
        files: Its files.
        rows: The first of its rows.
    """

    pattern: str
    files: LogFiles
    rows: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The last part of the pattern, without its ending or options of a store, in small letters."""
        return self.pattern.lower().partition("?")[0].rpartition("/")[2].split(".")[0].rstrip("*_-")

    def example(self, column: str) -> Any:
        """A value of a column; None: it has none."""
        return next((row[column] for row in self.rows if row[column] not in (None, "")), None)

    def number(self, column: str) -> bool:
        """Whether the first values are numbers, also if they are written as text; a truth is none."""
        found = self._values(column)
        return bool(found) and all(map(_is_number, found))

    def usual_number(self, column: str) -> float | None:
        """The median of the first values, if most of them are numbers; else None."""
        found = self._values(column)
        numbers = sorted(float(value) for value in found if _is_number(value) and math.isfinite(float(value)))
        return numbers[len(numbers) // 2] if 2 * len(numbers) > len(found) else None

    def few(self, column: str) -> bool:
        """Whether the values repeat, as those of a category do, and not of an id."""
        found = [str(row[column]) for row in self.rows if row[column] is not None]
        return 2 * len(set(found)) < len(found)

    def roles(self) -> dict[str, str]:
        """The column of each role that a name suggests."""
        roles: dict[str, str] = {}
        times = [column for column in self.files.columns if re.search(TIME, snake(column))]
        if times:  # when an impression was shown, rather than when it was clicked
            roles["time"] = next((column for column in times if not re.search(LABELS, snake(column))), times[0])
        found: dict[str, list[str]] = {}
        for column in self.files.columns:
            role = None if column in times else self.role(column)
            if role is not None:
                found.setdefault(role, []).append(column)
        if "item" in found:  # a list of the items that were shown, rather than another, or one item
            found["item"].sort(key=lambda column: not (self.is_list(column) and re.search(SHOWN, snake(column))))
        if not times and "time" not in found:  # a name that tells nothing, with values that do
            found["time"] = [c for c in self.files.columns if self.role(c) is None and self.holds_times(c)]
        return roles | {role: columns[0] for role, columns in found.items() if columns and role not in roles}

    def holds_times(self, column: str) -> bool:
        """Whether the first values are numbers as times are, of the years from 2001 to 2096, in s, ms, us or ns."""
        found = self._values(column) if self.number(column) and not self.is_list(column) else []
        return bool(found) and any(all(1e9 <= float(v) / unit < 4e9 for v in found) for unit in (1, 1e3, 1e6, 1e9))

    def is_list(self, column: str) -> bool:
        """Whether a row has a list of values of a column."""
        return self.files.columns[column].startswith(LISTS)

    def is_of_pages(self) -> bool:
        """Whether each row is a page view, with lists of its items and of clicks."""
        roles = self.roles()
        return all(role in roles and self.is_list(roles[role]) for role in ("item", "clicks"))

    def role(self, column: str) -> str | None:
        """What a column is by its name."""
        fits = [role for role, words in COLUMNS.items() if re.search(words, snake(column))]
        if self.is_list(column):
            shown = ["item"] if re.search(SHOWN, snake(column)) and "clicks" not in fits else []
            fits = shown + [role for role in fits if role not in OF_A_ROW]
        return next(iter(fits), None)

    def _values(self, column: str) -> list[Any]:
        """The first values that there are, those of lists one by one."""
        found = [row[column] for row in self.rows]
        each = [one for value in found for one in (value if isinstance(value, list) else [value])]
        return [value for value in each if value not in (None, "")]

    def types(self) -> list[str]:
        """The types of the first events."""
        column = self.roles().get("type")
        return [] if column is None else sorted({str(row[column]) for row in self.rows if row[column] is not None})

    def events_first(self) -> tuple[int, int, int]:
        """What makes a table the log's events rather than a part of them, most important first: roles, types, size."""
        needed = sum(role in self.roles() for role in ("user", "item", "time"))
        return needed, len(self.types()), sum(path.stat().st_size for path in self.files.paths)


def snake(name: str) -> str:
    """A column's name in small letters, with _ between words: clickedAt is clicked_at."""
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return not isinstance(value, bool)

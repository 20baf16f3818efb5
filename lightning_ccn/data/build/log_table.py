"""A table of a log as `ccn data init` sees it: what the names of its columns and its first rows suggest."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lightning_ccn.data.build.log_files import LogFiles

# Words in the names of tables and of columns, by what they probably are; the first that fits wins.
TABLES = {
    "exposures": "impression|exposure|display|shown|inview|views?$",
    "users": "user|profile|member|customer|visitor",
    "items": "item|product|article|news|catalog|sku|offer",
    "events": "event|click|order|purchase|behaviour|behavior|action|history|transaction",
}
COLUMNS = {
    "user": "user|^uid|^who$|member|customer|visitor|client",
    "trigger": "trigger|entry|referrer|source_item|from_item",
    "page": "page|view|request|impression_?id|search_?id",
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
        return self.pattern.lower().partition("?")[0].rpartition("/")[2].split(".")[0]

    def example(self, column: str) -> Any:
        """A value of a column; None: it has none."""
        return next((row[column] for row in self.rows if row[column] not in (None, "")), None)

    def number(self, column: str) -> bool:
        """Whether the first values are numbers, also if they are written as text."""
        found = [row[column] for row in self.rows if row[column] not in (None, "")]
        return bool(found) and all(isinstance(v, int | float) or _is_number(v) for v in found)

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
        for column in self.files.columns:
            if column in times:
                continue
            fits = (role for role, words in COLUMNS.items() if re.search(words, snake(column)))
            role = next(fits, None)
            if role is not None and role not in roles:
                roles[role] = column
        return roles

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
    return True

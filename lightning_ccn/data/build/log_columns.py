"""SQL expressions for the values of a log's columns; what cannot be read becomes null."""

from __future__ import annotations

from lightning_ccn.data.build.engine import FILE, ROW, Engine, literal, quoted
from lightning_ccn.data.build.log_files import LISTS, NUMBERS, WIDE, LogFiles, in_words
from lightning_ccn.data.build.source_specs import UNITS, TimeSpec
from lightning_ccn.data.columns import LARGEST
from lightning_ccn.errors import DataError

EARLIEST = 946_684_800  # seconds: the year 2000. Seconds that are taken for milliseconds are of 1970
LATEST = 2**32 - 1  # seconds, of a dataset folder
YEAR_9999 = 253_402_300_800  # seconds: its end; logs write its last day for "never"
# Numbers of the years 1973 to 5138 in each unit: of 9 to 11 digits in seconds, of 12 to 14 in milliseconds, ...
DIGITS = {unit: (10**digits, 10 ** (digits + 3) - 1) for unit, digits in (("s", 8), ("ms", 11), ("us", 14), ("ns", 17))}
WHOLE = 2**53  # below it, a float is a whole number exactly


class LogColumns:
    """Expressions for the columns of one view.

    Args:
        files: The files of the view.
        engine: The engine.
        lists: The list columns that the view has taken apart.
    """

    def __init__(self, files: LogFiles, engine: Engine, lists: tuple[str, ...] = ()) -> None:
        self.files, self.lists = files, lists
        self._engine = engine

    def kind(self, column: str, where: str) -> str:
        """The kind of a column, after lists were taken apart.

        Raises:
            DataError: There is no such column.
        """
        kind = self.files.kind(column, where)
        return kind.removeprefix(LISTS) if column in self.lists else kind

    def key(self, column: str, where: str, as_text: bool) -> str:
        """An id, BIGINT or VARCHAR; null if it is missing or the empty text.

        Raises:
            DataError: There is no such column, or it cannot hold ids. (A float that is no id ends the statement.)
        """
        kind, value = self.kind(column, where), quoted(column)
        if kind in ("timestamp", "instant", "other") or kind.startswith(LISTS):
            raise DataError(
                f"{self.files.paths[0]}: column {column}: is {in_words(kind)}, but {where} needs ids; "
                "write integers or text"
            )
        if kind == "float":  # integers with nulls, as pandas writes them
            begin = literal(f"{self.files.paths[0]}: column {column}: ")
            end = literal(
                f" is no id for {where}: floats are exact below 2^53, and ids are whole; write integers or text"
            )
            no_id = self._engine.fail(f"{begin} || CAST({value} AS VARCHAR) || {end}")
            value = (
                f"CASE WHEN {value} = FLOOR({value}) AND ABS({value}) < {WHOLE} THEN TRY_CAST({value} AS BIGINT) "
                f"WHEN NOT ISNAN({value}) THEN CAST({no_id} AS BIGINT) END"
            )
        if not as_text:
            return f"CAST({value} AS BIGINT)" if kind == "int" else value
        return f"NULLIF({value}, '')" if kind == "text" else f"CAST({value} AS VARCHAR)"

    def micros(self, time: TimeSpec, where: str) -> str:
        """Microseconds since 1970, BIGINT; null if there is no time, or one that a dataset folder cannot hold.

        Raises:
            DataError: There is no such column, or the unit does not fit it.
        """
        return self._micros(time, where, 0, LATEST)

    def beyond(self, time: TimeSpec, where: str) -> str:
        """Microseconds of a time that is too late for a dataset folder, BIGINT; null for all others.

        Logs write such times, as 9999-12-31, for "never".

        Raises:
            DataError: There is no such column, or the unit does not fit it.
        """
        return self._micros(time, where, LATEST + 1, YEAR_9999)

    def _micros(self, time: TimeSpec, where: str, first: int, last: int) -> str:
        """Microseconds of a time from one second to another, and null for all others."""
        kind, value = self.kind(time.column, where), quoted(time.column)
        dates = kind in ("date", "timestamp", "instant") or (kind == "text" and time.unit is None)
        if time.zone is not None and (kind == "instant" or not dates):
            raise DataError(
                f"{self.files.paths[0]}: column {time.column}: is {in_words(kind)}, but {where}.zone is for dates "
                "without one; leave it out"
            )
        if dates:
            if time.unit is not None:
                raise DataError(
                    f"{self.files.paths[0]}: column {time.column}: is {in_words(kind)}, so {where}.unit cannot be "
                    f"{time.unit}; leave it out"
                )
            if time.offset:
                raise DataError(
                    f"{self.files.paths[0]}: column {time.column}: is {in_words(kind)}, but {where}.offset is added to "
                    "numbers; " + (f"name their unit with {where}.unit" if kind == "text" else "leave it out")
                )
            micros = self._engine.micros(value, kind, time.zone)
            return f"CASE WHEN {micros} BETWEEN {first * 1_000_000} AND {last * 1_000_000} THEN {micros} END"
        if kind not in ("int", "float", "text"):
            raise DataError(
                f"{self.files.paths[0]}: column {time.column}: is {in_words(kind)}, but {where} needs times; write "
                "seconds or timestamps"
            )
        factor = UNITS[time.unit or "s"]
        least, most = (int(second * 1_000_000 / factor) - time.offset for second in (first, last))
        value = f"CAST({value} AS BIGINT)" if kind == "int" else f"TRY_CAST({value} AS DOUBLE)"
        total = f"({value} + {time.offset})" if time.offset else value
        if kind == "int":
            micros = f"{total} * {int(factor)}" if factor >= 1 else f"{total} // 1000"
        else:
            micros = f"TRY_CAST(FLOOR({total} * {factor}) AS BIGINT)"  # NaN too is cast before it is left out
        # the offset is taken off the limits: added to any number, it may overflow
        return f"CASE WHEN {value} BETWEEN {least} AND {most} THEN {micros} END"

    def meant_unit(self, time: TimeSpec, where: str) -> str:
        """The unit that a number without a time is probably in, by its digits, VARCHAR; null if none is known.

        Raises:
            DataError: There is no such column.
        """
        if self.kind(time.column, where) not in (*NUMBERS, "text"):
            return "CAST(NULL AS VARCHAR)"
        number = f"ABS(TRY_CAST({quoted(time.column)} AS DOUBLE) + {time.offset})"
        cases = " ".join(
            f"WHEN {number} BETWEEN {low} AND {high} THEN '{unit}'" for unit, (low, high) in DIGITS.items()
        )
        return f"CASE {cases} END"

    def time_reasons(self, time: TimeSpec, latest: int) -> dict[str, str]:
        """When a row's time cannot be used, and why: conditions on columns us (`micros`) and meant (`meant_unit`).

        Args:
            time: The column.
            latest: The latest time that is believed, in seconds since 1970.
        """
        declared = time.unit or ("s" if self.files.columns[time.column].removeprefix(LISTS) in NUMBERS else None)
        given = f"not one in {declared}" if declared else "a number without a unit"
        hints = {
            f"us IS NULL AND meant = '{unit}'": f"no time: {given}, but probably one in {unit}; write unit: {unit}"
            for unit in DIGITS
            if unit != declared
        }
        return {
            **hints,
            "us IS NULL": f"no time, or not one in {time.unit or 'seconds or as a date'}",
            f"us < {EARLIEST * 1_000_000}": "time before the year 2000: is it in another unit, or lacks it an offset?",
            f"us > {latest * 1_000_000}": "time in the future",
        }

    def integer(self, column: str, where: str) -> str:
        """A whole number, BIGINT; null if it is missing or not one.

        Raises:
            DataError: There is no such column, or it holds no numbers.
        """
        value = self._numeric(column, where)
        return f"CASE WHEN ABS({value}) < {WHOLE} THEN TRY_CAST(FLOOR({value}) AS BIGINT) END"

    def number(self, column: str, where: str) -> str:
        """A number, DOUBLE; null if it is missing, not a number, or so large that it means "missing".

        Raises:
            DataError: There is no such column, or it holds no numbers.
        """
        value = self._numeric(column, where)
        return f"CASE WHEN ABS({value}) <= {LARGEST:.0E} THEN {value} END"

    def no_number(self, column: str, where: str) -> str:
        """The text of a value that should be a number and is none, or too large to be one; null for all others.

        A missing value, NaN and an empty text are none of these.

        Raises:
            DataError: There is no such column.
        """
        kind, value, number = self.kind(column, where), quoted(column), f"TRY_CAST({quoted(column)} AS DOUBLE)"
        if kind not in ("text", "float", WIDE):
            return "CAST(NULL AS VARCHAR)"
        none = [f"({number} IS NOT NULL AND NOT ISNAN({number}) AND ABS({number}) > {LARGEST:.0E})"]
        if kind == "text":
            none.append(f"(TRIM({value}) <> '' AND {number} IS NULL)")
        return f"CASE WHEN {' OR '.join(none)} THEN CAST({value} AS VARCHAR) END"

    def binary(self, column: str, where: str) -> str:
        """A label, 0 or 1; null if it is anything else.

        Raises:
            DataError: There is no such column, or it holds neither numbers nor truths.
        """
        kind, value = self.kind(column, where), quoted(column)
        if kind in NUMBERS:
            return f"CASE WHEN {value} = 1 THEN 1 WHEN {value} = 0 THEN 0 END"
        if kind == "truth":
            return f"CASE WHEN {value} THEN 1 WHEN NOT {value} THEN 0 END"
        if kind == "text":
            one, zero = "('1', '1.0', 'true')", "('0', '0.0', 'false')"  # floats are integers that had nulls in pandas
            return f"CASE WHEN LOWER({value}) IN {one} THEN 1 WHEN LOWER({value}) IN {zero} THEN 0 END"
        raise DataError(f"{self.files.paths[0]}: column {column}: is {in_words(kind)}, but {where} needs 0 or 1")

    def text(self, column: str, where: str) -> str:
        """A text.

        Raises:
            DataError: There is no such column.
        """
        self.kind(column, where)
        return f"CAST({quoted(column)} AS VARCHAR)"

    def example(self, columns: dict[str, str]) -> str:
        """A text that shows where a row is, and some of its values.

        Args:
            columns: Words for columns, such as `user` for user_id.
        """
        row = f"COALESCE(': row ' || CAST({ROW} AS VARCHAR), '')"
        values = [
            f"{literal((', ' if at else ': ') + word + ' ')} || COALESCE(CAST({quoted(column)} AS VARCHAR), 'null')"
            for at, (word, column) in enumerate(columns.items())
        ]
        return " || ".join([FILE, row, *values])

    def _numeric(self, column: str, where: str) -> str:
        kind = self.kind(column, where)
        if kind not in (*NUMBERS, WIDE, "text"):
            raise DataError(f"{self.files.paths[0]}: column {column}: is {in_words(kind)}, but {where} needs numbers")
        return f"TRY_CAST({quoted(column)} AS DOUBLE)"

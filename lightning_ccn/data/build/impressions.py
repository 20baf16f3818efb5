"""From the rows of a log to impressions on page views.

Tables that this leaves in the engine: `heads` (one row a page view, numbered in order of time by `page_no`) and
`exposed` (one row an impression, with the reason if it is dropped).
"""

from __future__ import annotations

from lightning_ccn.data.build.build_report import BuildReport, Progress
from lightning_ccn.data.build.engine import PLACE, UNEQUAL, Engine, columns, quoted
from lightning_ccn.data.build.log_columns import LogColumns
from lightning_ccn.data.build.log_files import LISTS, NUMBERS, LogFiles
from lightning_ccn.data.build.source_specs import ExposureSpec, TimeSpec
from lightning_ccn.errors import DataError

SECOND = 1_000_000  # microseconds
AGAIN = "shown again on its page"


class Impressions:
    """Reads impressions and makes page views of them.

    Args:
        spec: What the log calls things.
        files: Its files.
        engine: The engine.
        text_ids: Whether the ids of a table are text, by table.
        latest: The latest time that is believed, in seconds since 1970.

    Attributes:
        keys: Names of the columns of a page's key, in `heads`.
        kinds: What a page's key consists of: names of columns of the log, by key.
        texts: Those keys that are texts.
        raw_page_id: Whether the log's own page id is an integer, which the dataset keeps.
        has_positions: Whether the log has positions.
    """

    def __init__(
        self, spec: ExposureSpec, files: LogFiles, engine: Engine, text_ids: dict[str, bool], latest: int
    ) -> None:
        self.spec, self._engine, self._text_ids, self._latest = spec, engine, text_ids, latest
        own: list[str | None] = [spec.item, spec.time.column, *(number.column for number in spec.numbers)]
        own += [each.column for each in (spec.position, spec.weight) if each]
        own += [label.column for label in (spec.clicks, spec.purchases) if label]
        self._lists: tuple[str, ...] = ()
        if files.kind(spec.item, "exposures.item").startswith(LISTS):
            named = [name for name in own if name is not None]
            self._lists = tuple(dict.fromkeys(n for n in named if files.kind(n, "exposures").startswith(LISTS)))
        self._columns = LogColumns(files, engine, self._lists)
        self.kinds = {f"k{at}": column for at, column in enumerate(spec.page.columns)}
        self.texts = {key: column for key, column in self.kinds.items() if files.columns.get(column) == "text"}
        self.keys = [*self.kinds, *(["visit"] if spec.page.gap is not None else [])]
        whole = files.kind(spec.page.columns[0], "exposures.page") in NUMBERS
        self.has_positions = spec.position is not None or bool(self._lists)
        self.raw_page_id = whole and self.keys == ["k0"]
        if spec.position_bias and not self.has_positions:
            raise DataError("exposures.position_bias: needs positions, and there are none; add position:")

    def read(self, report: BuildReport, progress: Progress) -> None:
        """Makes `heads` and `exposed`.

        Raises:
            DataError: A column is missing or cannot hold what it should, or no row is left.
        """
        with progress.stage("impressions read") as count:
            self._engine.read("raw_exposures", self._columns.files, self._lists)
            total = self._engine.table("given", self._given())
            count(total)
        report.broken_lines("impressions", self._engine, "raw_exposures")
        report.add("impressions", "read", "total", total)
        for key, names, specs in (
            ("numbers", self._numbers, self.spec.numbers),
            ("page_numbers", self._page_numbers, self.spec.page_numbers),
        ):
            numbers = {of.called: (name, f"odd_{name}") for name, of in zip(names, specs, strict=True)}
            report.no_numbers(self._engine, "given", numbers, f"exposures.{key}")
        if self.spec.position:
            odd = {self.spec.position.column: ("position", "odd_position")}
            report.no_numbers(self._engine, "given", odd, "exposures.position")
        self._look_at_positions(report, total)
        for name, label in (("click", self.spec.clicks), ("purchase", self.spec.purchases)):
            if label is not None and label.ids is not None:
                self._look_at_listed(name, label.ids, report)
        summary = "SELECT reason, COUNT(*) AS count, MIN(example) AS example FROM given GROUP BY reason"
        if report.dropped("impressions", self._engine, summary) == total:
            reasons = report.examples.get("impressions", {"the files have no rows": str(self._columns.files.paths[0])})
            why = "; ".join(f"{reason}: for example {example}" for reason, example in reasons.items())
            raise DataError(f"no impression is left of {total:,}: {why}")
        with progress.stage("page views formed") as count:
            self._engine.table("ordered", self._ordered())
            self._engine.drop("given")
            firsts = ", ".join(
                [*self.keys, "user_key", "head_trigger AS trigger_key", "us", *self._features, *self._page_numbers]
            )
            order = ", ".join(["us", *(f"{key} NULLS FIRST" for key in self.keys)])
            count(self._engine.number("heads", f"SELECT {firsts} FROM ordered WHERE rn = 1", order, "page_no"))
        with progress.stage("impressions on page views") as count:
            count(self._engine.table("exposed", self._exposed()))
            self._engine.drop("ordered")

    @property
    def _features(self) -> list[str]:
        return [f"f{at}" for at in range(len(self.spec.features))]

    @property
    def _numbers(self) -> list[str]:
        return [f"n{at}" for at in range(len(self.spec.numbers))]

    @property
    def _page_numbers(self) -> list[str]:
        return [f"g{at}" for at in range(len(self.spec.page_numbers))]

    @property
    def _of_item(self) -> list[str]:
        """Columns of floats with a value of each impression."""
        return [*self._numbers, *(["w"] if self.spec.weight else [])]

    def _look_at_listed(self, name: str, column: str, report: BuildReport) -> None:
        """Ids of clicked items that are none of the items on their row label nothing."""
        row = self._engine.rows(f"SELECT SUM(listed_{name}) AS listed, SUM({name}) AS found FROM given")[0]
        listed, found = row["listed"] or 0, row["found"] or 0
        if listed and not found:
            raise DataError(
                f"{self._columns.files.paths[0]}: column {column}: none of its {listed:,} ids is among the items of "
                f"its row; write them as those of column {self.spec.item}"
            )
        if listed > found:
            report.warnings.append(
                f"column {column}: at least {listed - found:,} of {listed:,} ids are none of the items on their row, "
                "and label nothing"
            )

    def _look_at_positions(self, report: BuildReport, total: int) -> None:
        """Positions that count from another number than the specification says would all be off by one, silently."""
        place = self.spec.position
        if place is None or (place.first is None and self.spec.position_bias is None):
            return
        first = 1 if place.first is None else place.first
        row = self._engine.rows(
            "SELECT MIN(position) AS least, SUM(CASE WHEN position < 1 THEN 1 ELSE 0 END) AS below FROM given"
        )[0]
        if row["below"]:
            raise DataError(
                f"exposures.position: column {place.column} is below {first}, the first position, in {row['below']:,} "
                f"of {total:,} impressions, such as {row['least'] + first - 1}; if it counts from 0, write "
                f"{{column: {place.column}, first: 0}}, else leave out what is no position"
            )
        report.positions = f"positions of column {place.column} begin with {first}, which is position 1"
        if row["least"] is not None and row["least"] > 1:
            report.positions += f"; warning: the lowest one is {row['least'] + first - 1}: does it begin there?"

    def _given(self) -> str:
        """All rows with typed values, and the reason why a row cannot be used."""
        spec, of = self.spec, self._columns
        keys = {}
        for key, column in self.kinds.items():
            kind = of.kind(column, "exposures.page")
            if kind in ("timestamp", "instant"):  # page views of one user may differ by time alone
                keys[key] = of.micros(TimeSpec(column), "exposures.page")
            else:
                keys[key] = of.key(column, "exposures.page", as_text=kind not in NUMBERS)
        position = f"{PLACE} + 1" if self._lists else "CAST(NULL AS BIGINT)"
        if spec.position:
            position = of.integer(spec.position.column, "exposures.position")
            if spec.position.first is not None:
                position = f"{position} + {1 - spec.position.first}"
        values = {
            **keys,
            "user_key": of.key(spec.user, "exposures.user", self._text_ids["user"]),
            "trigger_key": "CAST(NULL AS VARCHAR)"
            if spec.trigger is None
            else of.key(spec.trigger, "exposures.trigger", self._text_ids["item"]),
            "item_key": of.key(spec.item, "exposures.item", self._text_ids["item"]),
            "us": of.micros(spec.time, "exposures.time"),
            "meant": of.meant_unit(spec.time, "exposures.time"),
            "position": position,
        }
        if spec.position:
            values["odd_position"] = of.no_number(spec.position.column, "exposures.position")
        for name, label in (("click", spec.clicks), ("purchase", spec.purchases)):
            where = f"exposures.{name}s"
            if label is not None and label.column is not None:
                values[name] = of.binary(label.column, where)
            elif label is not None and label.ids is not None:
                if not of.kind(label.ids, where).startswith(LISTS) or not self._lists:
                    raise DataError(
                        f"{of.files.paths[0]}: column {label.ids}: {where}.ids needs a list column, beside a list of "
                        "items"
                    )
                ids, items = (of.files.kind(each, where).removeprefix(LISTS) for each in (label.ids, spec.item))
                if ids != items:
                    raise DataError(
                        f"{of.files.paths[0]}: column {label.ids}: has {ids}, but the items of column {spec.item} are "
                        f"{items}; write both as one type"
                    )
                inside = f"ARRAY_CONTAINS({quoted(label.ids)}, {quoted(spec.item)})"
                values[name] = f"CASE WHEN {inside} THEN 1 ELSE 0 END"
                listed = self._engine.different(quoted(label.ids))
                values[f"listed_{name}"] = f"CASE WHEN {PLACE} = 0 THEN {listed} END"
            else:
                values[name] = "0"
        for name, feature in zip(self._features, spec.features, strict=True):
            where = "exposures.features"
            if feature.separator or of.kind(feature.column, where).startswith(LISTS):
                raise DataError(
                    f"{of.files.paths[0]}: column {feature.column}: {where} have one value each; lists are for users"
                )
            values[name] = of.key(feature.column, where, self._text_ids[feature.table_name])
        for key, names, specs in (
            ("numbers", self._numbers, spec.numbers),
            ("page_numbers", self._page_numbers, spec.page_numbers),
        ):
            for name, number in zip(names, specs, strict=True):
                values[name] = of.number(number.column, f"exposures.{key}")
                values[f"odd_{name}"] = of.no_number(number.column, f"exposures.{key}")
        if spec.weight:
            values["w"] = of.number(spec.weight.column, "exposures.weight")
        words = {"user": spec.user, "item": spec.item, "time": spec.time.column}
        words |= {column: column for column in spec.page.columns if column not in words.values()}
        words |= {label.column: label.column for label in (spec.clicks, spec.purchases) if label and label.column}
        needed = [key for key, column in self.kinds.items() if column != spec.trigger]
        if self._lists:
            values |= {"unequal": UNEQUAL, "empty": f"{PLACE} IS NULL"}
        unequal = f"lists of unequal length on its row: {', '.join(self._lists)}"
        reasons = {
            **({"empty": "no item in the list of its row", "unequal": unequal} if self._lists else {}),
            " OR ".join(f"{key} IS NULL" for key in needed) or "FALSE": "no page id",
            "user_key IS NULL": "no user",
            "item_key IS NULL": "no item",
            **of.time_reasons(spec.time, self._latest),
            "click IS NULL OR purchase IS NULL": "a label is neither 0 nor 1",
        }
        if spec.weight:
            words["weight"] = spec.weight.column
            reasons["w IS NULL OR w < 0"] = "the weight is no number from 0 on"
        if spec.position_bias:
            reasons["position IS NULL"] = "no position, which position_bias needs"
        values["example"] = of.example(words)
        cases = " ".join(f"WHEN {test} THEN '{reason}'" for test, reason in reasons.items())
        kept = ", ".join(name for name in values if name != "example")
        return f"""
            SELECT {kept}, reason, CASE WHEN reason IS NOT NULL THEN example END AS example
            FROM (
                SELECT *, CASE {cases} END AS reason FROM (SELECT {columns(values)} FROM raw_exposures) AS typed
            ) AS judged
            """

    def _ordered(self) -> str:
        """The usable rows, numbered within their page view in an order without ties that matter."""
        source, gap = "SELECT * FROM given WHERE reason IS NULL", self.spec.page.gap
        if gap is not None:
            same = ", ".join(self.kinds)
            # impressions of one time are on one side of a gap: RANGE takes them together
            source = f"""
                SELECT *, SUM(fresh) OVER (
                    PARTITION BY {same} ORDER BY us RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                ) AS visit
                FROM (
                    SELECT *, CASE
                        WHEN us - LAG(us) OVER (PARTITION BY {same} ORDER BY us) > {gap * SECOND} THEN 1 ELSE 0
                    END AS fresh
                    FROM ({source}) AS usable
                ) AS marked
                """
        order = ["us", "position", "item_key", "user_key", "trigger_key", "click DESC", "purchase DESC"]
        order = [f"{each} NULLS LAST" for each in (*order, *self._features, *self._page_numbers, *self._of_item)]
        window = f"(PARTITION BY {', '.join(self.keys)} ORDER BY {', '.join(order)})"
        numbered = f"""
            SELECT *, ROW_NUMBER() OVER {window} AS rn, FIRST_VALUE(user_key) OVER {window} AS head_user
            FROM ({source}) AS usable
            """
        whole = "ORDER BY rn ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING"
        own = "CASE WHEN user_key = head_user THEN trigger_key END"
        first = f"FIRST_VALUE({own} IGNORE NULLS) OVER (PARTITION BY {', '.join(self.keys)} {whole})"
        return (
            f"SELECT *, {first if self.spec.trigger else 'trigger_key'} AS head_trigger FROM ({numbered}) AS numbered"
        )

    def _exposed(self) -> str:
        """The impressions of each page view; an item counts once, at its first place, clicked if it ever was."""
        same = " AND ".join(f"o.{key} IS NOT DISTINCT FROM h.{key}" for key in self.keys)
        tests = {
            "o.user_key <> o.head_user": "of another user than the first impression of its page",
            "o.trigger_key <> o.head_trigger": "of another trigger than the first impression of its page",
        }
        if self.spec.without_trigger:
            tests["o.item_key = o.head_trigger"] = "the trigger of its page"
        cases = " ".join(f"WHEN {test} THEN '{reason}'" for test, reason in tests.items())
        numbers = "".join(f", {name}" for name in self._of_item)
        window = "PARTITION BY page_no, item_key, reason"
        return f"""
            SELECT page_no, rn, item_key, user_key, us, position{numbers},
                most_click AS click, most_purchase AS purchase,
                CASE WHEN reason IS NULL AND again > 1 THEN '{AGAIN}' ELSE reason END AS reason
            FROM (
                SELECT *,
                    ROW_NUMBER() OVER ({window} ORDER BY rn) AS again,
                    MAX(click) OVER ({window}) AS most_click,
                    MAX(purchase) OVER ({window}) AS most_purchase
                FROM (
                    SELECT o.*, h.page_no, CASE {cases} END AS reason
                    FROM (SELECT {", ".join(self._own)} FROM ordered) AS o JOIN heads AS h ON {same}
                ) AS placed
            ) AS counted
            """

    @property
    def _own(self) -> list[str]:
        own = [*self.keys, "rn", "item_key", "user_key", "trigger_key", "head_user", "head_trigger", "us", "position"]
        return [*own, "click", "purchase", *self._of_item]

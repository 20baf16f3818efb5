"""The items of a log: their attributes and numbers, one row an item, and the columns of items.parquet."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.data.build.engine import Engine, columns, quoted
from lightning_ccn.data.build.ids import Ids
from lightning_ccn.data.build.lists import lists_of, take_apart, whole_list
from lightning_ccn.data.build.log_columns import LogColumns
from lightning_ccn.data.build.log_files import LogFiles
from lightning_ccn.data.build.source_specs import CatalogueSpec, FeatureSpec
from lightning_ccn.data.build.spec import LogSpec
from lightning_ccn.data.build.strangers import refuse_strangers
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.parquet import PageRows, list_column, value_column
from lightning_ccn.data.ragged import Ragged, joined_rows, rows_of
from lightning_ccn.data.rules import read_items
from lightning_ccn.errors import DataError

WHERE = "items.attributes"


def read_catalogue(
    spec: CatalogueSpec, files: LogFiles, engine: Engine, text_ids: dict[str, bool], report: BuildReport
) -> int:
    """Makes `catalogue`: item_key, a0, ... for the attributes, c0, ... for numbers, p0, ... for those above 0; one row
    an item.

    `lots0`, ... (by the place of the attribute) have item_key, place and id for an attribute with many values.

    Returns:
        The number of items.

    Raises:
        DataError: A column is missing, or cannot hold what it should.
    """
    of, many = LogColumns(files, engine), lists_of(spec.attributes, files, WHERE)
    values = {"item_key": of.key(spec.item, "items.item", text_ids["item"])}
    for at, feature in enumerate(spec.attributes):
        if feature.called in many:
            values[f"a{at}"] = whole_list(feature, of, WHERE)
        else:
            values[f"a{at}"] = of.key(feature.column, WHERE, text_ids[feature.table_name])
    for at, number in enumerate(spec.numbers):
        values[f"c{at}"] = of.number(number.column, "items.numbers")
    odd = {f"odd_c{at}": of.no_number(number.column, "items.numbers") for at, number in enumerate(spec.numbers)}
    for at, number in enumerate(spec.ratio_to_trigger):
        value = of.number(number.column, "items.ratio_to_trigger")
        values[f"p{at}"] = f"CASE WHEN {value} > 0 THEN {value} END"
        # what is no number, or none above 0
        text = f"CAST({quoted(number.column)} AS VARCHAR)"
        odd[f"odd_p{at}"] = f"CASE WHEN TRIM({text}) <> '' AND COALESCE({value}, 0) <= 0 THEN {text} END"
    engine.read("raw_items", files)
    order = ", ".join(f"{name} NULLS LAST" for name in values)
    engine.table(
        "versions",
        f"""
        SELECT *, ROW_NUMBER() OVER (PARTITION BY item_key ORDER BY {order}) AS version
        FROM (SELECT {columns({**values, **odd})} FROM raw_items) AS typed
        """,
    )
    numbers = {number.called: (f"c{at}", f"odd_c{at}") for at, number in enumerate(spec.numbers)}
    report.no_numbers(engine, "versions", numbers, "items.numbers")
    numbers = {number.called: (f"p{at}", f"odd_p{at}") for at, number in enumerate(spec.ratio_to_trigger)}
    report.no_numbers(engine, "versions", numbers, "items.ratio_to_trigger", "a number above 0")
    report.broken_lines("catalogue", engine, "raw_items")
    reason = "CASE WHEN item_key IS NULL THEN 'no item' WHEN version > 1 THEN 'another row of the same item' END"
    report.dropped(
        "catalogue",
        engine,
        f"""
        SELECT reason, COUNT(*) AS count, MIN(example) AS example
        FROM (
            SELECT {reason} AS reason, 'item ' || COALESCE(CAST(item_key AS VARCHAR), 'null') AS example FROM versions
        ) AS judged
        GROUP BY reason
        """,
    )
    chosen = f"SELECT {', '.join(values)} FROM versions WHERE version = 1 AND item_key IS NOT NULL"
    kept = engine.table("catalogue", chosen)
    engine.drop("versions")
    for at, feature in enumerate(spec.attributes):
        if feature.called in many:
            as_text = text_ids[feature.table_name]
            take_apart(f"lots{at}", "catalogue", "item_key", f"a{at}", feature, files, WHERE, as_text, engine)
    return kept


def refuse_other_items(spec: CatalogueSpec, files: LogFiles, engine: Engine) -> None:
    """Refuses a `catalogue` that has rows, and none of an item that a page view shows.

    Raises:
        DataError: It is so; the message shows an id of each.
    """
    query = "SELECT COUNT(*) AS n FROM catalogue AS c JOIN (SELECT DISTINCT item_key FROM shown) AS s USING (item_key)"
    if not engine.rows(query)[0]["n"]:
        theirs, ours = (f"SELECT item_key AS id FROM {table}" for table in ("catalogue", "shown"))
        refuse_strangers(files, spec.item, theirs, ours, engine)


def item_columns(
    spec: LogSpec, engine: Engine, ids: Ids, many: frozenset[str], older: Dataset | None
) -> dict[str, np.ndarray | Ragged]:
    """The columns of items.parquet, see `read_items`; attributes are int64.

    An item that `catalogue` has is as it says there, also where it says nothing: that is unknown now. One that it has
    not keeps what the older dataset says. With a hash, items may share a row: the last one wins.

    Args:
        spec: The specification.
        engine: The engine, with `catalogue` and the ids.
        ids: Rows of the ids.
        many: Names of the attributes with many values.
        older: An older dataset that is extended; None: there is none.

    Raises:
        DataError: The older dataset has not the same attributes.
    """
    if not spec.attributes and not spec.amounts:
        return {}
    rows, old = ids.sizes[ITEM], {} if older is None else read_items(older)
    if older is not None:
        _refuse_other_attributes(spec, many, old, older)
    described = _described(spec, engine, rows) if old else np.zeros(rows, bool)
    single = {at: f for at, f in enumerate(spec.attributes) if f.called not in many}
    found: dict[str, np.ndarray | Ragged] = {}
    for feature in single.values():
        before = value_column(old, feature.called) if old else np.zeros(0, np.int64)
        found[feature.called] = column = np.zeros(rows, np.int64)
        column[: len(before)] = before
        column[described] = 0
    if single:
        _fill_single(spec, engine, single, found)
    for at, feature in enumerate(spec.attributes):
        if feature.called in many:
            found[feature.called] = _lists(spec, engine, at, feature, rows, old, described)
    columns = {feature.called: found[feature.called] for feature in spec.attributes}
    return {**columns, **_amounts(spec, engine, rows, old, described)}


def _described(spec: LogSpec, engine: Engine, rows: int) -> np.ndarray:
    """Whether the log's own table of items describes the item of each row, bool [rows]."""
    found = np.zeros(rows, bool)
    query = f"SELECT r.row AS row FROM catalogue AS c JOIN {spec.rows_view(ITEM)} AS r ON c.item_key = r.id"
    for batch in engine.stream(query):
        found[batch["row"].to_numpy()] = True
    return found


def _amounts(spec: LogSpec, engine: Engine, rows: int, old: PageRows, described: np.ndarray) -> dict[str, np.ndarray]:
    found = {}
    for at, number in enumerate(spec.amounts):
        found[number.called] = column = np.full(rows, np.nan, np.float32)
        if number.called in old:
            before = value_column(old, number.called)
            column[: len(before)] = before
            column[described] = np.nan
        query = f"""
            SELECT r.row AS row, c.p{at} AS amount
            FROM catalogue AS c JOIN {spec.rows_view(ITEM)} AS r ON c.item_key = r.id
            WHERE c.p{at} IS NOT NULL
            ORDER BY r.row, r.id
            """
        for batch in engine.stream(query):
            column[batch["row"].to_numpy()] = batch["amount"].to_numpy()
    return found


def _refuse_other_attributes(spec: LogSpec, many: frozenset[str], old: PageRows, older: Dataset) -> None:
    for name in [*(f.called for f in spec.attributes), *(number.called for number in spec.amounts)]:
        if name not in old:
            raise DataError(f"{older.folder}: has no column '{name}' of items; build without --extends")
        if isinstance(old[name], Ragged) != (name in many):
            there, here = ("one value", "many") if name in many else ("many values", "one")
            raise DataError(
                f"{older.folder}: attribute '{name}' has {there} an item there, and {here} in this log; build without "
                "--extends"
            )


def _fill_single(
    spec: LogSpec, engine: Engine, single: Mapping[int, FeatureSpec], found: Mapping[str, np.ndarray | Ragged]
) -> None:
    rows = [f"COALESCE(r{at}.row, 0) AS row{at}" for at in single]
    joins = [f"LEFT JOIN {spec.rows_view(f.table_name)} AS r{at} ON c.a{at} = r{at}.id" for at, f in single.items()]
    query = f"""
        SELECT r.row AS row, {", ".join(rows)}
        FROM catalogue AS c JOIN {spec.rows_view(ITEM)} AS r ON c.item_key = r.id {" ".join(joins)}
        ORDER BY r.row, r.id
        """
    for batch in engine.stream(query):
        place = batch["row"].to_numpy()
        for at, feature in single.items():
            known = batch[f"row{at}"].to_numpy()
            value_column(found, feature.called)[place[known > 0]] = known[known > 0]


def _lists(
    spec: LogSpec, engine: Engine, at: int, feature: FeatureSpec, rows: int, old: PageRows, described: np.ndarray
) -> Ragged:
    query = f"""
        SELECT row, value
        FROM (
            SELECT r.row AS row, r.id AS id, l.place AS place, COALESCE(v.row, 0) AS value,
                MAX(r.id) OVER (PARTITION BY r.row) AS last
            FROM lots{at} AS l JOIN {spec.rows_view(ITEM)} AS r ON l.item_key = r.id
            LEFT JOIN {spec.rows_view(feature.table_name)} AS v ON l.id = v.id
        ) AS each
        WHERE id = last
        ORDER BY row, place
        """
    batches = [(batch["row"].to_numpy(), batch["value"].to_numpy()) for batch in engine.stream(query)]
    own, values = (np.concatenate(each) for each in zip(*batches, strict=True)) if batches else (np.zeros(0, int),) * 2
    new = Ragged.from_lengths(values, np.bincount(own, minlength=rows))
    if not old:
        return new
    before = list_column(old, feature.called)
    more = Ragged.from_lengths(before.values, np.append(before.lengths, np.zeros(rows - len(before.lengths), int)))
    both = joined_rows([new, more])
    return rows_of(both, np.arange(rows) + np.where(described, 0, rows))

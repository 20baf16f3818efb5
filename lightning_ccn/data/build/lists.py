"""Features with many values: list columns, and texts with a separator."""

from __future__ import annotations

from lightning_ccn.data.build.engine import PLACE, Engine, quoted
from lightning_ccn.data.build.log_columns import LogColumns
from lightning_ccn.data.build.log_files import LISTS, LogFiles
from lightning_ccn.data.build.source_specs import FeatureSpec


def lists_of(features: tuple[FeatureSpec, ...], files: LogFiles, where: str) -> frozenset[str]:
    """Names of the features with many values."""
    return frozenset(f.called for f in features if f.separator or files.kind(f.column, where).startswith(LISTS))


def whole_list(feature: FeatureSpec, of: LogColumns, where: str) -> str:
    """An expression for all values of a feature with many: a list, or a text with separators."""
    return of.text(feature.column, where) if feature.separator else quoted(feature.column)


def take_apart(
    name: str,
    source: str,
    keys: str,
    column: str,
    feature: FeatureSpec,
    files: LogFiles,
    where: str,
    as_text: bool,
    engine: Engine,
) -> None:
    """Makes a table with a row for each value of a feature with many: the keys, place and id.

    Values that are missing, and empty texts, are left out.

    Args:
        name: Name of the table.
        source: The table that has the lists.
        keys: Its columns that the values are of, separated by commas.
        column: Its column with `whole_list`.
        feature: The feature.
        files: The files that the column is from.
        where: The key of the specification that names the feature.
        as_text: Whether its ids are text.
        engine: The engine.
    """
    apart = engine.apart(f"SELECT {keys}, {column} FROM {source}", column, feature.separator)
    kind = files.kind(feature.column, where).removeprefix(LISTS)
    # the same files with one column, under the name and of the kind that it has in the table
    alone = LogColumns(LogFiles(files.name, files.paths, {column: kind}, (), files.delimiter, ()), engine)
    value = alone.key(column, where, as_text)
    typed = f"SELECT {keys}, {PLACE} AS place, {value} AS id FROM ({apart}) AS each"
    engine.table(name, f"SELECT * FROM ({typed}) AS typed WHERE id IS NOT NULL")

"""Which ids of each table the dataset uses, and how often each occurs before validation."""

from __future__ import annotations

from lightning_ccn.data.build.events import used_acts
from lightning_ccn.data.build.spec import USER, LogSpec
from lightning_ccn.data.convert.pages import Cuts
from lightning_ccn.data.page_row import ITEM


def seen_ids(spec: LogSpec, table: str, many: frozenset[str], cuts: Cuts) -> list[str]:
    """Queries for the ids of a table, with the columns id and n.

    Args:
        spec: The specification.
        table: Name of the table. That of the items comes before those of their attributes.
        many: Names of the features with many values.
        cuts: Where the splits begin.
    """
    found = []
    early = "SUM(CASE WHEN p.split = 0 THEN 1 ELSE 0 END) AS n"
    if table == USER:
        found.append(f"SELECT p.user_key AS id, {early} FROM pages AS p GROUP BY p.user_key")
    if table == ITEM:
        joined = "shown AS s JOIN pages AS p ON s.page_no = p.page_no"
        found.append(f"SELECT s.item_key AS id, {early} FROM {joined} GROUP BY s.item_key")
        if spec.exposures.trigger:
            found.append(f"SELECT p.trigger_key AS id, {early} FROM pages AS p GROUP BY p.trigger_key")
        if spec.events:
            found.append(
                f"""
                SELECT a.item_key AS id, SUM(CASE WHEN a.sec < {cuts.validation} THEN 1 ELSE 0 END) AS n
                FROM acts AS a JOIN visitors AS v ON a.user_key = v.user_key
                WHERE a.sec < v.last_sec AND ({used_acts(spec)})
                GROUP BY a.item_key
                """
            )
    for at, feature in enumerate(spec.exposures.features):
        if feature.table_name == table:
            found.append(f"SELECT p.f{at} AS id, {early} FROM pages AS p GROUP BY p.f{at}")
    for at, feature in enumerate(spec.profile):
        if feature.table_name == table:
            column, source = ("id", f"many{at}") if feature.called in many else (f"u{at}", "profiles")
            found.append(f"SELECT {column} AS id, COUNT(*) AS n FROM {source} GROUP BY {column}")
    for at, feature in enumerate(spec.attributes):
        if feature.table_name == table:
            column, source = ("id", f"lots{at}") if feature.called in many else (f"a{at}", "catalogue")
            joined = f"{source} AS c JOIN {spec.rows_view(ITEM)} AS r ON c.item_key = r.id"
            found.append(f"SELECT c.{column} AS id, COUNT(*) AS n FROM {joined} GROUP BY c.{column}")
    return found

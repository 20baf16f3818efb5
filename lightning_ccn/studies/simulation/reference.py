"""Reference rankings without a model: the log's recommender, and the best possible rankings."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

import numpy as np

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.world import Visits, World
from lightning_ccn.studies.simulation.ranking import Ranking

REFERENCES = {
    "oracle": "Oracle: knows everything",
    "attainable": "Attainable: knows all that a log shows",
    "recommender": "The log's own recommender",
}

BY_CLICK = Ranking("click")

Columns = TypeVar("Columns")


def reference_scores(
    name: str, world: World, visits: Visits, candidates: Ragged, ranking: Ranking = BY_CLICK
) -> np.ndarray:
    """Scores float64 [candidates] of a reference of `REFERENCES`.

    - `oracle`: The true click probability at the first position, given also what no log shows: the visit's intent and
      the page clickiness (how click-prone the whole page is).
    - `attainable`: The same, averaged over what no log shows. It chooses the items with the most expected clicks that a
      model can choose; only the order of the chosen items can gain a little more.
    - `recommender`: The order in which the world that wrote the log would show the candidates, whatever the ranking.

    Ranked by orders, the first two have the true probability of an order: the purchase of a clicked item depends on
    nothing that is hidden.

    Args:
        name: Name of the reference.
        world: The world.
        visits: The visits.
        candidates: The candidates of each visit, in the recommender's order.
        ranking: What candidates are ranked by.
    """
    if name == "recommender":
        return -np.arange(len(candidates.values), dtype=np.float64)
    page = np.repeat(np.arange(len(candidates.lengths)), candidates.lengths)
    # a page for each candidate, so that all have position 1
    alone = Ragged(candidates.values, np.arange(len(page) + 1))
    visit_of_each = replace(_rows(visits, page), users=_rows(visits.users, page))
    click = (world.click_probability if name == "oracle" else world.attainable_probability)(visit_of_each, alone)
    order = click * world.purchase_probability(visit_of_each, alone) if ranking.needs_orders else None
    return ranking.scores(click, order)


def _rows(columns: Columns, row: np.ndarray) -> Columns:
    """The given rows of a dataclass of arrays; other fields stay as they are."""
    values = {field.name: getattr(columns, field.name) for field in fields(columns)}  # type: ignore[arg-type]
    taken = {name: value[row] for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(columns, **taken)  # type: ignore[type-var]

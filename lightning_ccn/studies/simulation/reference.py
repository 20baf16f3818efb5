"""Rankings that need no model: what the log's recommender shows, and what nobody can beat."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

import numpy as np

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.world import Visits, World

REFERENCES = {
    "oracle": "Oracle: knows all",
    "attainable": "Attainable: knows all but what no log shows",
    "recommender": "The log's own recommender",
}

Columns = TypeVar("Columns")


def reference_scores(name: str, world: World, visits: Visits, candidates: Ragged) -> np.ndarray:
    """ScoreCollector float64 [candidates] of a reference of `REFERENCES`.

    - `oracle`: the true click probability at the first position, given the visit's hidden intent and clickiness too.
    - `attainable`: the same averaged over what is hidden. No model's expected clicks can be above, but for what the
      order among the items shown is worth.
    - `recommender`: the order in which the world that wrote the log would show them.
    """
    if name == "recommender":
        return -np.arange(len(candidates.values), dtype=np.float64)
    page = np.repeat(np.arange(len(candidates.lengths)), candidates.lengths)
    alone = Ragged(candidates.values, np.arange(len(page) + 1))  # each on a page of its own: all at position 1
    visit_of_each = replace(_rows(visits, page), users=_rows(visits.users, page))
    if name == "oracle":
        return world.click_probability(visit_of_each, alone)
    return world.attainable_probability(visit_of_each, alone)


def _rows(columns: Columns, row: np.ndarray) -> Columns:
    """The given rows of a dataclass of arrays; what is no array stays."""
    values = {field.name: getattr(columns, field.name) for field in fields(columns)}  # type: ignore[arg-type]
    taken = {name: value[row] for name, value in values.items() if isinstance(value, np.ndarray)}
    return replace(columns, **taken)  # type: ignore[type-var]

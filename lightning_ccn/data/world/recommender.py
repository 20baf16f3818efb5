"""The recommender that chooses the items of a page, from four sources."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.scenarios import Scenarios
from lightning_ccn.data.world.visits import Visits

FEATURED_SHARE = 0.25  # share of the categories that a promotion features


class Recommender:
    """The system that made the log. Its items are near the trigger, near the interests, popular, or promoted."""

    def __init__(self, config: WorldConfig, draws: Draws, catalogue: Catalogue, scenarios: Scenarios) -> None:
        self.config, self._draws, self._catalogue, self._scenarios = config, draws, catalogue, scenarios

    def page_lengths(self, visits: Visits) -> np.ndarray:
        """Int64 [pages]: number of exposed items of each page."""
        low, high = (of[visits.scenario] for of in (self._scenarios.shortest, self._scenarios.longest))
        return low + (self._draws.uniform("page length", visits.page_id) * (high - low + 1)).astype(np.int64)

    def exposures(self, visits: Visits, lengths: np.ndarray) -> Ragged:
        """The exposed items of each page: distinct item rows, without the trigger, in order of position.

        Args:
            visits: The page views.
            lengths: Int64 [pages], number of items per page; well below the number of all items.
        """
        config, catalogue = self.config, self._catalogue
        items = Ragged.from_lengths(np.empty(0, np.int64), lengths)
        row = np.repeat(np.arange(len(lengths)), lengths)
        page_id, position = visits.page_id[row], np.arange(len(row)) - items.offsets[row]
        shares = np.cumsum([config.near_trigger, config.near_interests, config.popular])
        source = np.searchsorted(shares, self._draws.uniform("source", page_id, position))
        category = catalogue.draw_category("popular category", page_id, position)
        wish = np.zeros((len(row), config.dims), np.float32)  # 0 by default: any item, by popularity

        near_trigger = source == 0
        trigger = visits.trigger[row[near_trigger]]
        category[near_trigger], wish[near_trigger] = catalogue.category[trigger], catalogue.latent[trigger]

        near_interest = source == 1
        which = self._draws.uniform("source interest", page_id, position) * config.interests
        which, of = which[near_interest].astype(np.int64), row[near_interest]
        category[near_interest] = visits.users.category[of, which]
        wish[near_interest] = visits.users.interest[of, which]

        promoted = source == 3
        featured = self._featured(visits.promotion)
        choice = self._draws.uniform("featured category", page_id, position) * len(featured)
        category[promoted] = featured[choice[promoted].astype(np.int64)]

        scenario = visits.scenario[row]
        category = self._scenarios.instead[scenario, category]
        values = catalogue.pick("exposure", page_id, position, category=category, wish=wish, deal=promoted)
        attempt = 0
        while (again := _repeated(row, values, visits.trigger)).any():
            attempt += 1
            anything = self._draws.uniform("instead of a duplicate", page_id[again], position[again], attempt)
            values[again] = self._anything(anything, scenario[again])
        return Ragged(values, items.offsets)

    def _anything(self, uniform: np.ndarray, scenario: np.ndarray) -> np.ndarray:
        """Int64 [n]: items that the scenarios [n] show, all equally likely, by uniforms [n] in (0, 1)."""
        items = 1 + (uniform * self.config.items).astype(np.int64)
        for row in np.unique(scenario[scenario > 0]):
            of_row = scenario == row
            items[of_row] = self._catalogue.item_within(self._scenarios.shown[row], uniform[of_row])
        return items

    def _featured(self, promotion: int) -> np.ndarray:
        """Int64: the categories that a promotion features."""
        categories = np.arange(1, self.config.categories + 1)
        order = np.argsort(self._draws.bits("featured", promotion, categories))
        return categories[order[: max(1, int(FEATURED_SHARE * len(categories)))]]


def _repeated(row: np.ndarray, values: np.ndarray, trigger: np.ndarray) -> np.ndarray:
    """Bool [items]: which of the items, page-major, are repeated on their page or are its trigger."""
    order = np.lexsort((values, row))
    repeated = values == trigger[row]
    after = order[1:]
    repeated[after] |= (values[after] == values[order[:-1]]) & (row[after] == row[order[:-1]])
    return repeated

"""Visits: the user, time and trigger with which a promotion is entered, and the hidden intent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.population import Population, Users
from lightning_ccn.data.world.scenarios import Scenarios


@dataclass(frozen=True)
class Visits:
    """Page views of one promotion, before items are exposed; with hidden state that no log shows.

    Attributes:
        page_id: Int64 [pages].
        promotion: Number of the promotion.
        scenario: Int64 [pages], the scenario; 0 in a world with one.
        time: Int64 [pages], seconds since 1970.
        users: The visitors, one row per page.
        trigger: Int64 [pages], the item row that the user clicked to enter, one of the user's recent behaviours.
        intent: Float64 [pages], P(user came for the trigger).
        for_trigger: Bool [pages], whether the user came for the trigger; hidden.
        clickiness: Float64 [pages], logit shift of all items of the page; hidden.
    """

    page_id: np.ndarray
    promotion: int
    scenario: np.ndarray
    time: np.ndarray
    users: Users
    trigger: np.ndarray
    intent: np.ndarray
    for_trigger: np.ndarray
    clickiness: np.ndarray


class Entrance:
    """Draws the visits of a promotion."""

    def __init__(
        self, config: WorldConfig, draws: Draws, catalogue: Catalogue, population: Population, scenarios: Scenarios
    ) -> None:
        self.config, self._draws, self._catalogue, self._population = config, draws, catalogue, population
        self._scenarios = scenarios

    def visits(self, promotion: int, number: np.ndarray, time: np.ndarray) -> Visits:
        """Draws page views with their hidden state.

        Args:
            promotion: Number of the promotion.
            number: Int64 [pages], number of each page in the promotion, which determines all of its draws.
            time: Int64 [pages], seconds since 1970.
        """
        page_id = (np.int64(promotion) << 32) + number
        scenario = self._scenarios.of_pages(page_id)
        users = self._population.users(self._population.visitor(page_id))
        count, length = self._population.history_lengths(users, time)
        # recent behaviours of the short sequence are likelier triggers
        back = self._draws.uniform("trigger", page_id) ** 2 * np.minimum(length, self.config.short_length)
        row = np.arange(len(page_id))
        trigger = self._population.behaviour(users, row, count - 1 - back.astype(np.int64))
        category = self._catalogue.category[trigger]
        fit = self._population.fit(users, row, trigger)
        logit = users.inclination + self.config.intent_fit * (fit - 0.5)
        logit += self.config.promotion_mix * self._draws.normal("intent mix", promotion)
        logit += self.config.promotion_mix * self._draws.normal("intent mix of category", promotion, category)
        logit += self._scenarios.intent[scenario]
        intent = 1 / (1 + np.exp(-logit))
        return Visits(
            page_id=page_id,
            promotion=promotion,
            scenario=scenario,
            time=time,
            users=users,
            trigger=trigger,
            intent=intent,
            for_trigger=self._draws.uniform("intent", page_id) < intent,
            clickiness=self._scenarios.clickiness[scenario] * self._draws.normal("clickiness", page_id),
        )

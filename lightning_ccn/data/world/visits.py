"""Visits: who enters a promotion, when, through which trigger, and with which hidden intent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.population import Population, Users


@dataclass(frozen=True)
class Visits:
    """Page views before anything is shown: who, when, through what, and the hidden state. One row a page.

    Attributes:
        page_id: int64 [pages].
        promotion: whose they are.
        time: int64 [pages], seconds since 1970.
        users: the visitors, a row a page.
        trigger: int64 [pages], an item row of the user's recent behaviours.
        intent: float64 [pages], P(came for the trigger).
        for_trigger: bool [pages], the intent drawn; hidden.
        clickiness: float64 [pages], the page's logit shift; hidden.
    """

    page_id: np.ndarray
    promotion: int
    time: np.ndarray
    users: Users
    trigger: np.ndarray
    intent: np.ndarray
    for_trigger: np.ndarray
    clickiness: np.ndarray


class Entrance:
    """Where users enter a promotion."""

    def __init__(self, config: WorldConfig, draws: Draws, catalogue: Catalogue, population: Population) -> None:
        self.config, self._draws, self._catalogue, self._population = config, draws, catalogue, population

    def visits(self, promotion: int, number: np.ndarray, time: np.ndarray) -> Visits:
        """Draws page views, hidden state included.

        Args:
            promotion: whose they are.
            number: int64 [pages], each page's number in that promotion: all of its draws follow from it.
            time: int64 [pages], seconds since 1970.
        """
        page_id = (np.int64(promotion) << 32) + number
        users = self._population.users(self._population.visitor(page_id))
        count, length = self._population.history_lengths(users, time)
        # the more recent of the short sequence, the likelier it brought the user here
        back = self._draws.uniform("trigger", page_id) ** 2 * np.minimum(length, self.config.short_length)
        row = np.arange(len(page_id))
        trigger = self._population.behaviour(users, row, count - 1 - back.astype(np.int64))
        category = self._catalogue.category[trigger]
        fit = self._population.fit(users, row, trigger)
        logit = users.inclination + self.config.intent_fit * (fit - 0.5)
        logit += self.config.promotion_mix * self._draws.normal("intent mix", promotion)
        logit += self.config.promotion_mix * self._draws.normal("intent mix of category", promotion, category)
        intent = 1 / (1 + np.exp(-logit))
        return Visits(
            page_id=page_id,
            promotion=promotion,
            time=time,
            users=users,
            trigger=trigger,
            intent=intent,
            for_trigger=self._draws.uniform("intent", page_id) < intent,
            clickiness=self.config.page_clickiness * self._draws.normal("clickiness", page_id),
        )

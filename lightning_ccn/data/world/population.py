"""Users: profile, interests, taste for promotions, past behaviours; each computed from the id when asked for.

Behaviours are what a user does elsewhere in the shop, at a pace of their own. What a user clicks on promotion pages
does not enter them: then a page would depend on all of the user's pages before it, and nothing could be computed alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws, beta_logit
from lightning_ccn.data.world.knobs import WorldConfig

AGES, GENDERS, CITIES = 6, 2, 30
START = 1_704_067_200  # 1 January 2024: promotion 0 begins
DAY = 86_400
HISTORY = 180 * DAY  # behaviours begin so long before promotion 0
FEWEST = 5  # behaviours of any user when promotion 0 begins


@dataclass(frozen=True)
class Users:
    """Some users, a row each.

    Attributes:
        user: int64 [n], ids.
        age: int64 [n] in 1..AGES; shifts the taste for promotions.
        gender: int64 [n] in 1..GENDERS; leans to some categories.
        city: int64 [n] in 1..CITIES; shifts the taste for promotions.
        category: int64 [n, interests], of each interest.
        interest: float32 [n, interests, dims], unit vectors: the item each interest would like best.
        strength: float32 [n, interests] in (0, 1], the strongest 1.
        taste: float64 [n], N(0, 1): the taste for promotions.
        inclination: float64 [n], logit of a Beta(a, a): how readily the user enters for the trigger.
        pace: float64 [n], behaviours per second.
    """

    user: np.ndarray
    age: np.ndarray
    gender: np.ndarray
    city: np.ndarray
    category: np.ndarray
    interest: np.ndarray
    strength: np.ndarray
    taste: np.ndarray
    inclination: np.ndarray
    pace: np.ndarray


class Population:
    """All users. No table: memory does not depend on their number."""

    def __init__(self, config: WorldConfig, draws: Draws, catalogue: Catalogue) -> None:
        self.config, self._draws, self._catalogue = config, draws, catalogue

    def visitor(self, *counters: np.ndarray) -> np.ndarray:
        """int64 in [1, users]: who comes. Of two users drawn, the more active: some come often, some hardly ever."""
        pair = np.stack([self._draws.uniform(f"visitor {i}", *counters) for i in (1, 2)])
        pair = 1 + np.minimum((pair * self.config.users).astype(np.int64), self.config.users - 1)
        first, second = self._draws.bits("activity", pair)
        return np.where(first >= second, pair[0], pair[1])

    def users(self, user: np.ndarray) -> Users:
        """The users of these ids, int64 [n]."""
        draws, which = self._draws, np.arange(self.config.interests)
        age, gender, city = (
            1 + (draws.uniform(name, user) * values).astype(np.int64)
            for name, values in (("age", AGES), ("gender", GENDERS), ("city", CITIES))
        )
        category = self._interest_categories(user, gender)
        strength = -np.log(draws.uniform("strength", user[:, None], which))
        taste = 0.4 * draws.normal("taste of age", age) + 0.4 * draws.normal("taste of city", city)
        behaviours = FEWEST + 1.5 * self.config.long_length * draws.uniform("pace", user)
        return Users(
            user=user,
            age=age,
            gender=gender,
            city=city,
            category=category,
            interest=self._catalogue.around(category, "interest", user[:, None], which),
            strength=(strength / strength.max(axis=1, keepdims=True)).astype(np.float32),
            taste=taste + np.sqrt(1 - 2 * 0.4**2) * draws.normal("taste", user),
            inclination=beta_logit(draws.uniform("inclination", user), self.config.intent_spread),
            pace=behaviours / HISTORY,
        )

    def fit(self, users: Users, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """How well items suit users: the largest over interests of sqrt(strength) * cosine.

        Args:
            users: n users.
            row: int64 [m] in [0, n), which of them.
            item: int64 [m], item rows.

        Returns:
            float64 [m], at most 1.
        """
        cosine = np.einsum("mid,md->mi", users.interest[row], self._catalogue.latent[item])
        return (cosine * np.sqrt(users.strength[row])).max(axis=1).astype(np.float64)

    def history_lengths(self, users: Users, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Behaviours before a time: (all that there were, those that the long sequence keeps), int64 [n] each."""
        count = (users.pace * (time - START + HISTORY)).astype(np.int64)
        return count, np.minimum(count, self.config.long_length)

    def behaviour(self, users: Users, row: np.ndarray, index: np.ndarray) -> np.ndarray:
        """Which item a behaviour was with: a function of the user and the behaviour's number alone.

        Args:
            users: n users.
            row: int64 [m] in [0, n), whose behaviour.
            index: int64 [m], its number in that user's life.

        Returns:
            int64 [m], item rows.
        """
        user = users.user[row]
        which = self._draws.uniform("behaviour interest", user, index)
        explores = which < self.config.exploration
        which = (which - self.config.exploration) / max(1 - self.config.exploration, 1e-9)
        share = np.cumsum(users.strength / users.strength.sum(axis=1, keepdims=True), axis=1)
        interest = (which[:, None] >= share[row, :-1]).sum(axis=1)
        category, wish = users.category[row, interest], users.interest[row, interest]
        category[explores] = self._catalogue.draw_category("behaviour category", user[explores], index[explores])
        wish[explores] = 0.0
        return self._catalogue.pick("behaviour item", user, index, category=category, wish=wish)

    def histories(self, users: Users, time: np.ndarray) -> tuple[Ragged, Ragged]:
        """Long histories before a time, oldest first: items (int64 rows) and times (int64 seconds), n lists each."""
        count, length = self.history_lengths(users, time)
        row = np.repeat(np.arange(len(length)), length)
        items = Ragged.from_lengths(np.empty(0), length)
        index = np.arange(len(row)) - items.offsets[row] + (count - length)[row]
        jitter = self._draws.uniform("behaviour time", users.user[row], index)
        # number k falls into the k-th slot of the user's pace, so times are in order
        when = (START - HISTORY + (index + jitter) / users.pace[row]).astype(np.int64)
        when = np.minimum(when, time[row] - 1)
        return Ragged(self.behaviour(users, row, index), items.offsets), Ragged(when, items.offsets)

    def _interest_categories(self, user: np.ndarray, gender: np.ndarray) -> np.ndarray:
        """int64 [n, interests]: half of the interests go the way the gender leans, between two categories."""
        which = np.arange(self.config.interests)
        first, second = (self._catalogue.draw_category(f"interest category {i}", user[:, None], which) for i in (1, 2))
        lean = [self._draws.bits("gender lean", category, gender[:, None]) for category in (first, second)]
        swayed = self._draws.uniform("swayed", user[:, None], which) < 0.5
        return np.where(swayed & (lean[1] > lean[0]), second, first)

"""Users: profile, interests, taste for promotions and past behaviours, computed from the user id on demand.

Behaviours happen elsewhere in the shop, at each user's own pace. Clicks on promotion pages do not become behaviours;
otherwise a page would depend on all earlier pages of its user and could not be computed on its own.
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
HISTORY = 180 * DAY  # time between the first behaviours and promotion 0
FEWEST = 5  # smallest number of behaviours of a user when promotion 0 begins


@dataclass(frozen=True)
class Users:
    """A number of users, one per row.

    Attributes:
        user: Int64 [n], user ids.
        age: Int64 [n] in 1..AGES; shifts the taste for promotions.
        gender: Int64 [n] in 1..GENDERS; makes some categories likelier.
        city: Int64 [n] in 1..CITIES; shifts the taste for promotions.
        category: Int64 [n, interests], the category of each interest.
        interest: Float32 [n, interests, dims], unit vectors: the ideal item of each interest.
        strength: Float32 [n, interests] in (0, 1]; a user's strongest interest has 1.
        taste: Float64 [n], N(0, 1): the taste for promotions.
        inclination: Float64 [n], logit of a Beta(a, a) variable: the inclination to come for the trigger.
        pace: Float64 [n], behaviours per second.
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
    """All users. There is no table, so memory does not depend on their number."""

    def __init__(self, config: WorldConfig, draws: Draws, catalogue: Catalogue) -> None:
        self.config, self._draws, self._catalogue = config, draws, catalogue

    def visitor(self, *counters: np.ndarray) -> np.ndarray:
        """Int64 in [1, users], the visitors: the more active of two random users, so some users come more often."""
        pair = np.stack([self._draws.uniform(f"visitor {i}", *counters) for i in (1, 2)])
        pair = 1 + np.minimum((pair * self.config.users).astype(np.int64), self.config.users - 1)
        first, second = self._draws.bits("activity", pair)
        return np.where(first >= second, pair[0], pair[1])

    def users(self, user: np.ndarray) -> Users:
        """The users with these ids, int64 [n]."""
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
        """How well items fit users: the largest of sqrt(strength) * cosine over the interests.

        Args:
            users: The n users.
            row: Int64 [m] in [0, n), the user of each pair.
            item: Int64 [m], the item row of each pair.

        Returns:
            Float64 [m], at most 1.
        """
        cosine = np.einsum("mid,md->mi", users.interest[row], self._catalogue.latent[item])
        return (cosine * np.sqrt(users.strength[row])).max(axis=1).astype(np.float64)

    def history_lengths(self, users: Users, time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of behaviours before a time, and how many of them the long sequence keeps; int64 [n] each."""
        count = (users.pace * (time - START + HISTORY)).astype(np.int64)
        return count, np.minimum(count, self.config.long_length)

    def behaviour(self, users: Users, row: np.ndarray, index: np.ndarray) -> np.ndarray:
        """The item of a behaviour, a function of the user and the number of the behaviour.

        Args:
            users: The n users.
            row: Int64 [m] in [0, n), the user of each behaviour.
            index: Int64 [m], the number of each behaviour among all behaviours of its user.

        Returns:
            Int64 [m], item rows.
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
        """Long sequences before a time, oldest first: int64 item rows and int64 times in seconds, [n] each."""
        count, length = self.history_lengths(users, time)
        row = np.repeat(np.arange(len(length)), length)
        items = Ragged.from_lengths(np.empty(0), length)
        index = np.arange(len(row)) - items.offsets[row] + (count - length)[row]
        jitter = self._draws.uniform("behaviour time", users.user[row], index)
        # behaviour k falls into the k-th interval of the user's pace, so times are in order
        when = (START - HISTORY + (index + jitter) / users.pace[row]).astype(np.int64)
        when = np.minimum(when, time[row] - 1)
        return Ragged(self.behaviour(users, row, index), items.offsets), Ragged(when, items.offsets)

    def _interest_categories(self, user: np.ndarray, gender: np.ndarray) -> np.ndarray:
        """Int64 [n, interests]. For half of the interests, the one of two random categories that the gender prefers."""
        which = np.arange(self.config.interests)
        first, second = (self._catalogue.draw_category(f"interest category {i}", user[:, None], which) for i in (1, 2))
        lean = [self._draws.bits("gender lean", category, gender[:, None]) for category in (first, second)]
        swayed = self._draws.uniform("swayed", user[:, None], which) < 0.5
        return np.where(swayed & (lean[1] > lean[0]), second, first)

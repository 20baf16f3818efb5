"""The promotion world: how likely what is shown is clicked and bought.

A page view of promotion p by user u, who came through trigger t. Why, is hidden:

    P(for the trigger) = sigmoid( inclination_u + intent_fit * (fit(u, t) - 1/2) + mix_p + mix_{p, category(t)} )

An exposed item i at position k = 1, 2, ... is clicked with

    logit = intercept + quality_pull * quality_i - position_effect * ln(k) + page_clickiness * e_page
            + trigger_pull * cos(i, t)                                                  for the trigger, or
            + interest_pull * fit(u, i) + deal_pull * deal_i + taste_pull * taste_u     for the promotion

where fit(u, i) is the largest over u's interests of sqrt(strength) * cosine, and e_page ~ N(0, 1) is hidden too. A
clicked item is bought with logit = intercept' + fit(u, i) + deal_i / 2 + taste_u / 2. Both intercepts are solved so
that the mean probability over training pages is the knob's.

`World.attainable_probability` is the click probability without the hidden part: the average over both intents and
e_page, given everything else that there is to know: the true parameters of user, items and promotion, of which a log
shows but estimates. So no model's expected AUC is above its AUC, and more page views bring models nearer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.population import AGES, CITIES, GENDERS, Population
from lightning_ccn.data.world.recommender import Recommender
from lightning_ccn.data.world.visits import Entrance, Visits
from lightning_ccn.data.world.windows import windows

PROFILE = ("user", "age", "gender", "city")
CALIBRATION_PAGES = 4_096
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)  # Gauss-Hermite: sum(weight * f(node)) = E f(N(0, 1))
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class World:
    """A promotion world.

    Every method is a function of its arguments and the knobs: calls may come in any order, and one page's values do
    not depend on what other pages they are asked with.

    Args:
        config: the knobs.

    Attributes:
        config: the knobs.
        catalogue: the items.
        population: the users and their histories.
        entrance: draws visits.
        recommender: draws what they are shown.

    >>> world = World(WorldConfig(users=50, items=200))
    >>> visits = world.entrance.visits(promotion=4, number=np.arange(3), time=np.full(3, 1_706_500_000))
    >>> items = world.recommender.exposures(visits, lengths=np.array([4, 30, 1]))
    >>> world.click_probability(visits, items).shape
    (35,)
    """

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self._draws = Draws(config.seed)
        self.catalogue = Catalogue(config, self._draws)
        self.population = Population(config, self._draws, self.catalogue)
        self.entrance = Entrance(config, self._draws, self.catalogue, self.population)
        self.recommender = Recommender(config, self._draws, self.catalogue)

    @property
    def schema(self) -> Schema:
        """Tables and features of the folders that this world writes."""
        config = self.config
        ids = {"user": config.users, "age": AGES, "gender": GENDERS, "city": CITIES}
        ids |= {page_row.ITEM: config.items, "category": config.categories, "seller": config.sellers}
        return Schema(
            tables={name: Table(1 + count) for name, count in ids.items()},
            user=tuple(Feature(name, name) for name in PROFILE),
            attributes=(Feature("category", "category"), Feature("seller", "seller")),
            category="category",
        )

    def click_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """P(click), everything known, the hidden state of the visits too.

        Args:
            visits: the pages.
            items: of each page, in order of position.

        Returns:
            float64 [items].
        """
        row, always, for_trigger, for_promotion = self._click_terms(visits, items)
        logit = self._intercepts[0] + always + np.where(visits.for_trigger[row], for_trigger, for_promotion)
        return _sigmoid(logit + visits.clickiness[row])

    def attainable_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """float64 [items]: P(click), with intent and page clickiness integrated out; arguments as above."""
        return self._integrate(visits, self._intercepts[0], *self._click_terms(visits, items))

    def purchase_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """float64 [items]: P(purchase | click); arguments as above."""
        return _sigmoid(self._intercepts[1] + self._purchase_term(visits, items))

    def outcomes(self, visits: Visits, items: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Draws clicks and purchases, int8 [items] each; arguments as above.

        The luck belongs to (page, item), whatever the position: two rankings of one page meet the same.
        """
        page_id = np.repeat(visits.page_id, items.lengths)
        click = self._draws.uniform("click", page_id, items.values) < self.click_probability(visits, items)
        purchase = self._draws.uniform("purchase", page_id, items.values) < self.purchase_probability(visits, items)
        return click.astype(np.int8), (click & purchase).astype(np.int8)

    def rows(self, visits: Visits, items: Ragged, truth: bool = False) -> dict[str, np.ndarray | Ragged]:
        """Page rows as a dataset folder holds them.

        Args:
            visits: the pages.
            items: exposed on each, in order of position.
            truth: with the probabilities that only a world knows.
        """
        clicks, purchases = self.outcomes(visits, items)
        long_items, long_times = self.population.histories(visits.users, visits.time)
        short_items, short_times = (_last(long, self.config.short_length) for long in (long_items, long_times))
        rows: dict[str, np.ndarray | Ragged] = {
            page_row.PAGE_ID: visits.page_id,
            page_row.TIME: visits.time,
            **{name: getattr(visits.users, name) for name in PROFILE},
            page_row.TRIGGER: visits.trigger,
            page_row.ITEMS: items,
            page_row.CLICKS: Ragged(clicks, items.offsets),
            page_row.PURCHASES: Ragged(purchases, items.offsets),
            page_row.POSITIONS: Ragged(_positions(items), items.offsets),
            page_row.SHORT_ITEMS: short_items,
            page_row.SHORT_TIMES: short_times,
            page_row.LONG_ITEMS: long_items,
            page_row.LONG_TIMES: long_times,
        }
        if truth:
            rows[page_row.TRUE_PROBABILITY] = Ragged(self.click_probability(visits, items), items.offsets)
            rows[page_row.ATTAINABLE_PROBABILITY] = Ragged(self.attainable_probability(visits, items), items.offsets)
        return rows

    def _click_terms(self, visits: Visits, items: Ragged) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The page of each item, int64, and logit terms float64: of any intent, for the trigger, for the promotion."""
        config, catalogue, item = self.config, self.catalogue, items.values
        row = np.repeat(np.arange(len(items.lengths)), items.lengths)
        always = config.quality_pull * catalogue.quality[item] - config.position_effect * np.log(_positions(items))
        likeness = np.einsum("nd,nd->n", catalogue.latent[item], catalogue.latent[visits.trigger[row]])
        for_promotion = (
            config.interest_pull * self.population.fit(visits.users, row, item)
            + config.deal_pull * catalogue.deal[item]
            + config.taste_pull * visits.users.taste[row]
        )
        return row, always, config.trigger_pull * likeness.astype(np.float64), for_promotion

    def _purchase_term(self, visits: Visits, items: Ragged) -> np.ndarray:
        row = np.repeat(np.arange(len(items.lengths)), items.lengths)
        fit = self.population.fit(visits.users, row, items.values)
        return fit + 0.5 * self.catalogue.deal[items.values] + 0.5 * visits.users.taste[row]

    def _integrate(
        self,
        visits: Visits,
        intercept: float,
        row: np.ndarray,
        always: np.ndarray,
        for_trigger: np.ndarray,
        for_promotion: np.ndarray,
    ) -> np.ndarray:
        """float64 [items]: the click probability of given logit terms, averaged over intent and clickiness."""
        result = np.zeros(len(row))
        intent = visits.intent[row]
        for share, term in ((intent, for_trigger), (1 - intent, for_promotion)):
            for node, weight in zip(NODES, WEIGHTS, strict=True):
                result += weight * share * _sigmoid(intercept + always + term + self.config.page_clickiness * node)
        return result

    @cached_property
    def _intercepts(self) -> tuple[float, float]:
        """Of clicks and of purchases: with them a sample of the training pages has the rates asked for."""
        pages = []
        for window in windows(self.config)["train"]:
            step = -(-self.config.train_pages // CALIBRATION_PAGES)
            number = np.arange(window.first, window.first + window.pages, step)
            visits = self.entrance.visits(window.promotion, number, window.times(number))
            items = self.recommender.exposures(visits, self.recommender.page_lengths(visits))
            pages.append((visits, self._click_terms(visits, items), self._purchase_term(visits, items)))

        def click(intercept: float) -> np.ndarray:
            return np.concatenate([self._integrate(visits, intercept, *terms) for visits, terms, _ in pages])

        of_clicks = _solve(lambda intercept: float(click(intercept).mean()), self.config.click_rate)
        clicked, term = click(of_clicks), np.concatenate([purchase for *_, purchase in pages])
        of_purchases = _solve(
            lambda intercept: float(np.average(_sigmoid(intercept + term), weights=clicked)), self.config.purchase_rate
        )
        return of_clicks, of_purchases


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _solve(mean_at: Callable[[float], float], target: float) -> float:
    """The intercept at which a mean of sigmoids is `target`.

    Its logit grows no faster than the intercept, so steps by what is missing never overshoot.
    """
    intercept, step = 0.0, np.inf
    while abs(step) > 1e-6:
        mean = mean_at(intercept)
        step = np.log(target / (1 - target)) - np.log(mean / (1 - mean))
        intercept += step
    return float(intercept)


def _positions(items: Ragged) -> np.ndarray:
    """int64 [items]: 1, 2, ... on each page."""
    return 1 + np.arange(len(items.values)) - np.repeat(items.offsets[:-1], items.lengths)


def _last(lists: Ragged, most: int) -> Ragged:
    """The last values of each list, at most so many."""
    kept = Ragged.from_lengths(lists.values, np.minimum(lists.lengths, most))
    behind = np.repeat(lists.offsets[1:] - kept.offsets[1:], kept.lengths)
    return Ragged(lists.values[behind + np.arange(kept.offsets[-1])], kept.offsets)

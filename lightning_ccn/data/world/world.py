"""The promotion world: the probabilities of clicks and purchases.

User u enters promotion p by clicking an item, the trigger t. The user's intent, for the trigger or for the promotion,
is hidden:

    P(for the trigger) =
        sigmoid( inclination_u + intent_fit * (fit(u, t) - 1/2) + mix_p + mix_{p, category(t)} + mix_s )

An exposed item i at position k = 1, 2, ... is clicked with

    logit = intercept + clicks_s + quality_pull * quality_i - position_effect * ln(k) + page_clickiness_s * e_page
            + trigger_pull * cos(i, t)                                                  for the trigger, or
            + interest_pull * fit(u, i) + deal_pull * deal_i + taste_pull * taste_u     for the promotion

where fit(u, i) is the largest of sqrt(strength) * cosine over u's interests. page_clickiness_s * e_page, with e_page ~
N(0, 1), is the page's clickiness: how click-prone the whole page is; it is hidden too. s is the page's scenario, which
its row names; in a world with one scenario, mix_s and clicks_s are 0 (see `Scenarios`). A clicked item is purchased
with logit = intercept' + fit(u, i) + deal_i / 2 + taste_u / 2. Both intercepts are set so that the mean probabilities
on the training pages are those of the knobs.

`World.attainable_probability` averages the click probability over both intents and over e_page, given the true
parameters of user, items, promotion and scenario. A log only allows estimates of these. So no model's expected AUC is
above the AUC of this probability, and with more page views models come closer to it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np

from lightning_ccn.data import page_row
from lightning_ccn.data.ragged import Ragged, most_recent
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.population import AGES, CITIES, GENDERS, Population
from lightning_ccn.data.world.recommender import Recommender
from lightning_ccn.data.world.scenarios import Scenarios
from lightning_ccn.data.world.visits import Entrance, Visits
from lightning_ccn.data.world.windows import windows

PROFILE = ("user", "age", "gender", "city")
SCENARIO = "scenario"  # in page rows; a profile feature, which is what the schema calls every category of a whole page
CALIBRATION_PAGES = 4_096
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)  # Gauss-Hermite: sum(weight * f(node)) = E f(N(0, 1))
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class World:
    """A promotion world.

    Every method is a pure function of its arguments and the knobs. Calls may come in any order, and the values of a
    page do not depend on the other pages of the call.

    Args:
        config: The knobs.

    Attributes:
        config: The knobs.
        catalogue: The items.
        population: The users and their histories.
        scenarios: How the scenarios differ.
        entrance: Draws visits.
        recommender: Draws the items that a visit is shown.

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
        self.scenarios = Scenarios(config, self._draws, self.catalogue)
        self.entrance = Entrance(config, self._draws, self.catalogue, self.population, self.scenarios)
        self.recommender = Recommender(config, self._draws, self.catalogue, self.scenarios)

    @property
    def schema(self) -> Schema:
        """Tables and features of the folders that this world writes."""
        config = self.config
        ids = {"user": config.users, "age": AGES, "gender": GENDERS, "city": CITIES}
        ids |= {page_row.ITEM: config.items, "category": config.categories, "seller": config.sellers}
        ids |= {SCENARIO: config.scenarios} if config.scenarios > 1 else {}
        return Schema(
            tables={name: Table(1 + count) for name, count in ids.items()},
            user=tuple(Feature(name, name) for name in (*PROFILE, SCENARIO) if name in ids),
            attributes=(Feature("category", "category"), Feature("seller", "seller")),
            category="category",
        )

    def click_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """P(click) given everything, including the hidden state of the visits.

        Args:
            visits: The page views.
            items: Exposed items of each page, in order of position.

        Returns:
            Float64 [items].
        """
        row, always, for_trigger, for_promotion = self._click_terms(visits, items)
        logit = self._intercepts[0] + always + np.where(visits.for_trigger[row], for_trigger, for_promotion)
        return _sigmoid(logit + visits.clickiness[row])

    def attainable_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """Float64 [items]: P(click), with intent and page clickiness integrated out; arguments as above."""
        return self._integrate(visits, self._intercepts[0], *self._click_terms(visits, items))

    def purchase_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """Float64 [items]: P(purchase | click); arguments as above."""
        return _sigmoid(self._intercepts[1] + self._purchase_term(visits, items))

    def outcomes(self, visits: Visits, items: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Draws clicks and purchases, int8 [items] each; arguments as above.

        The random numbers depend on the page and the item but not on the position, so two rankings of the same page
        are compared under the same luck.
        """
        page_id = np.repeat(visits.page_id, items.lengths)
        click = self._draws.uniform("click", page_id, items.values) < self.click_probability(visits, items)
        purchase = self._draws.uniform("purchase", page_id, items.values) < self.purchase_probability(visits, items)
        return click.astype(np.int8), (click & purchase).astype(np.int8)

    def rows(self, visits: Visits, items: Ragged, truth: bool = False) -> dict[str, np.ndarray | Ragged]:
        """Page rows of a dataset folder, by column.

        Args:
            visits: The page views.
            items: Exposed items of each page, in order of position.
            truth: Whether to add the true and the attainable click probability, and the intent.
        """
        clicks, purchases = self.outcomes(visits, items)
        long_items, long_times = self.population.histories(visits.users, visits.time)
        short_items, short_times = (most_recent(long, self.config.short_length) for long in (long_items, long_times))
        rows: dict[str, np.ndarray | Ragged] = {
            page_row.PAGE_ID: visits.page_id,
            page_row.TIME: visits.time,
            **{name: getattr(visits.users, name) for name in PROFILE},
            **({SCENARIO: visits.scenario} if self.config.scenarios > 1 else {}),
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
            rows[page_row.FOR_TRIGGER] = visits.for_trigger.astype(np.int8)
        return rows

    def _click_terms(self, visits: Visits, items: Ragged) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Per item, its page (int64) and three logit terms (float64): common, for the trigger, for the promotion."""
        config, catalogue, item = self.config, self.catalogue, items.values
        row = np.repeat(np.arange(len(items.lengths)), items.lengths)
        always = config.quality_pull * catalogue.quality[item] - config.position_effect * np.log(_positions(items))
        always += self.scenarios.clicks[visits.scenario[row]]
        similarity = np.einsum("nd,nd->n", catalogue.latent[item], catalogue.latent[visits.trigger[row]])
        for_promotion = (
            config.interest_pull * self.population.fit(visits.users, row, item)
            + config.deal_pull * catalogue.deal[item]
            + config.taste_pull * visits.users.taste[row]
        )
        return row, always, config.trigger_pull * similarity.astype(np.float64), for_promotion

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
        """Float64 [items]: the click probability of given logit terms, averaged over intent and clickiness."""
        result = np.zeros(len(row))
        intent, clickiness = visits.intent[row], self.scenarios.clickiness[visits.scenario[row]]
        for share, term in ((intent, for_trigger), (1 - intent, for_promotion)):
            for node, weight in zip(NODES, WEIGHTS, strict=True):
                result += weight * share * _sigmoid(intercept + always + term + clickiness * node)
        return result

    @cached_property
    def _intercepts(self) -> tuple[float, float]:
        """Intercepts of clicks and purchases that give a sample of the training pages the rates of the knobs."""
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

    The logit of the mean grows no faster than the intercept, so a step by the difference of logits never overshoots.
    """
    intercept, step = 0.0, np.inf
    while abs(step) > 1e-6:
        mean = mean_at(intercept)
        step = np.log(target / (1 - target)) - np.log(mean / (1 - mean))
        intercept += step
    return float(intercept)


def _positions(items: Ragged) -> np.ndarray:
    """Int64 [items]: 1, 2, ... on each page."""
    return 1 + np.arange(len(items.values)) - np.repeat(items.offsets[:-1], items.lengths)

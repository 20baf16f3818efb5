"""The promotion world: who comes, with which hidden intent, what is shown, and how likely it is clicked and bought.

A page view of promotion p by user u, who came through trigger t. The intent is hidden:

    P(for the trigger) = sigmoid( logit(inclination_u) + intent_fit * (fit(u, t) - 1/2) + mix_p + mix_{p, category(t)} )

An exposed item i at position k = 1, 2, ... is clicked with

    logit = intercept + quality_pull * quality_i - position_effect * ln(k) + page_clickiness * e_page
            + trigger_pull * cos(i, t)                                                  for the trigger, or
            + interest_pull * fit(u, i) + deal_pull * deal_i + taste_pull * taste_u     for the promotion

where fit(u, i) is the largest, over u's interests, of sqrt(strength) * cos, and e_page ~ N(0, 1) is hidden too. A
clicked item is bought with logit = intercept' + fit(u, i) + deal_i / 2 + taste_u / 2. Both intercepts are solved so
that the mean probability over training pages is the knob's.

What the click probability is without the hidden part, `World.attainable_probability`, is the average over both
intents and e_page given everything else that there is to know: the true parameters of user, items and promotion, of
which a log of any length can only show estimates. So it bounds every model, and no model quite gets there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lightning_ccn.data import schema as names
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.population import AGES, CITIES, GENDERS, Population, Users
from lightning_ccn.data.world.windows import windows
from lightning_ccn.data.writer import Ragged

FEATURED_SHARE = 0.25  # of the categories, in each promotion
CALIBRATION_PAGES = 8_192
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(32)  # integrates over N(0, 1) when the weights sum to 1
WEIGHTS = WEIGHTS / WEIGHTS.sum()


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


class World:
    """A promotion world.

    Every method is a function of its arguments and the knobs: calls share no state and may come in any order.

    Args:
        config: the knobs.
    """

    def __init__(self, config: WorldConfig) -> None:
        self.config = config
        self.draws = Draws(config.seed)
        self.catalogue = Catalogue(config, self.draws)
        self.population = Population(config, self.draws, self.catalogue)

    @property
    def schema(self) -> Schema:
        """Tables and features of the folders that this world writes."""
        config = self.config
        rows = {"user": config.users, "age": AGES, "gender": GENDERS, "city": CITIES, names.ITEM: config.items}
        rows |= {"category": config.categories, "seller": config.sellers}
        return Schema(
            tables={name: Table(1 + count) for name, count in rows.items()},
            user=tuple(Feature(name, name) for name in ("user", "age", "gender", "city")),
            attributes=(Feature("category", "category"), Feature("seller", "seller")),
            category="category",
        )

    def visits(self, promotion: int, number: np.ndarray, time: np.ndarray) -> Visits:
        """Draws page views, hidden state included.

        Args:
            promotion: whose they are.
            number: int64 [pages], each page's number in that promotion: all of its draws follow from it.
            time: int64 [pages], seconds since 1970.
        """
        page_id = (np.int64(promotion) << 32) + number
        users = self.population.users(self.population.visitor(page_id))
        count, length = self.population.history_lengths(users, time)
        # the more recent of the short sequence, the likelier it brought the user here
        back = self.draws.uniform("trigger", page_id) ** 2 * np.minimum(length, self.config.short_length)
        row = np.arange(len(page_id))
        trigger = self.population.behaviour(users, row, count - 1 - back.astype(np.int64))
        category = self.catalogue.category[trigger]
        fit = self._fit(users, row, trigger)
        logit = np.log(users.inclination) - np.log1p(-users.inclination) + self.config.intent_fit * (fit - 0.5)
        logit += self.config.promotion_mix * self.draws.normal("intent mix", promotion)
        logit += self.config.promotion_mix * self.draws.normal("intent mix of category", promotion, category)
        intent = _sigmoid(logit)
        return Visits(
            page_id=page_id,
            promotion=promotion,
            time=time,
            users=users,
            trigger=trigger,
            intent=intent,
            for_trigger=self.draws.uniform("intent", page_id) < intent,
            clickiness=self.config.page_clickiness * self.draws.normal("clickiness", page_id),
        )

    def page_lengths(self, visits: Visits) -> np.ndarray:
        """int64 [pages]: how many items each page shows."""
        low, high = self.config.page_min, self.config.page_max
        return low + (self.draws.uniform("page length", visits.page_id) * (high - low + 1)).astype(np.int64)

    def exposures(self, visits: Visits, lengths: np.ndarray) -> Ragged:
        """What the mixed recommender shows: items of each page, distinct, in order of position.

        Args:
            visits: the pages.
            lengths: int64 [pages], how many items of each; well below the number of items.
        """
        config, catalogue = self.config, self.catalogue
        items = Ragged.from_lengths(np.empty(0, np.int64), lengths)
        row = np.repeat(np.arange(len(lengths)), lengths)
        page_id, position = visits.page_id[row], np.arange(len(row)) - items.offsets[row]
        shares = np.cumsum([config.near_trigger, config.near_interests, config.popular])
        source = np.searchsorted(shares, self.draws.uniform("source", page_id, position))
        category = catalogue.draw_category("popular category", page_id, position)
        wish = np.zeros((len(row), config.dims), np.float32)  # none: what is popular in a popular category

        near_trigger = source == 0
        trigger = visits.trigger[row[near_trigger]]
        category[near_trigger], wish[near_trigger] = catalogue.category[trigger], catalogue.latent[trigger]

        near_interest = source == 1
        which = self.draws.uniform("source interest", page_id, position) * config.interests
        which, of = which[near_interest].astype(np.int64), row[near_interest]
        category[near_interest] = visits.users.category[of, which]
        wish[near_interest] = visits.users.interest[of, which]

        promoted = source == 3
        featured = self._featured(visits.promotion)
        choice = self.draws.uniform("featured category", page_id, position) * len(featured)
        category[promoted] = featured[choice[promoted].astype(np.int64)]

        values = catalogue.pick("exposure", page_id, position, category=category, wish=wish, deal=promoted)
        attempt = 0
        while (again := _repeated(row, values, visits.trigger)).any():
            attempt += 1
            anything = self.draws.uniform("instead of a duplicate", page_id[again], position[again], attempt)
            values[again] = 1 + (anything * config.items).astype(np.int64)
        return Ragged(values, items.offsets)

    def click_logit(self, visits: Visits, items: Ragged, for_trigger: np.ndarray | None = None) -> np.ndarray:
        """The equation above without the page's clickiness.

        Args:
            visits: the pages.
            items: of each page, in order of position.
            for_trigger: bool [pages], the intent; None: as drawn.

        Returns:
            float64 [items].
        """
        if for_trigger is None:
            for_trigger = visits.for_trigger
        always, trigger, promotion = self._click_terms(visits, items)
        row = np.repeat(np.arange(len(items.lengths)), items.lengths)
        return self._intercepts[0] + always + np.where(for_trigger[row], trigger, promotion)

    def click_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """float64 [items]: P(click), everything known, the hidden state too."""
        return _sigmoid(self.click_logit(visits, items) + np.repeat(visits.clickiness, items.lengths))

    def attainable_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """float64 [items]: P(click), with the intent and the page's clickiness integrated out."""
        return self._integrated(visits, items, self._intercepts[0], *self._click_terms(visits, items))

    def purchase_probability(self, visits: Visits, items: Ragged) -> np.ndarray:
        """float64 [items]: P(purchase | click)."""
        return _sigmoid(self._intercepts[1] + self._purchase_terms(visits, items))

    def outcomes(self, visits: Visits, items: Ragged) -> tuple[np.ndarray, np.ndarray]:
        """Draws clicks and purchases, int8 [items] each.

        The draw belongs to (page, item), not to the position: two rankings of one page meet the same luck.
        """
        page_id = np.repeat(visits.page_id, items.lengths)
        click = self.draws.uniform("click", page_id, items.values) < self.click_probability(visits, items)
        purchase = self.draws.uniform("purchase", page_id, items.values) < self.purchase_probability(visits, items)
        return click.astype(np.int8), (click & purchase).astype(np.int8)

    def rows(self, visits: Visits, items: Ragged, truth: bool) -> Mapping[str, np.ndarray | Ragged]:
        """Page rows as a dataset folder holds them.

        Args:
            visits: the pages.
            items: exposed on each, in order of position.
            truth: with the probabilities that only a world knows.
        """
        click, purchase = self.outcomes(visits, items)
        long_items, long_times = self.population.histories(visits.users, visits.time)
        short_items, short_times = (_last(long, self.config.short_length) for long in (long_items, long_times))
        position = 1 + np.arange(len(items.values)) - np.repeat(items.offsets[:-1], items.lengths)
        rows: dict[str, np.ndarray | Ragged] = {
            names.PAGE_ID: visits.page_id,
            names.TIME: visits.time,
            **{feature.name: getattr(visits.users, feature.name) for feature in self.schema.user},
            names.TRIGGER: visits.trigger,
            names.ITEMS: items,
            names.CLICKS: Ragged(click, items.offsets),
            names.PURCHASES: Ragged(purchase, items.offsets),
            names.POSITIONS: Ragged(position, items.offsets),
            names.SHORT_ITEMS: short_items,
            names.SHORT_TIMES: short_times,
            names.LONG_ITEMS: long_items,
            names.LONG_TIMES: long_times,
        }
        if truth:
            rows[names.TRUE_PROBABILITY] = Ragged(self.click_probability(visits, items), items.offsets)
            rows[names.ATTAINABLE_PROBABILITY] = Ragged(self.attainable_probability(visits, items), items.offsets)
        return rows

    def _featured(self, promotion: int) -> np.ndarray:
        """int64: the categories that a promotion features."""
        categories = np.arange(1, self.config.categories + 1)
        order = np.argsort(self.draws.bits("featured", promotion, categories))
        return categories[order[: max(1, int(FEATURED_SHARE * len(categories)))]]

    def _fit(self, users: Users, row: np.ndarray, item: np.ndarray) -> np.ndarray:
        """float64 [n]: how well items suit the users of those rows."""
        likeness = np.einsum("nid,nd->ni", users.interest[row], self.catalogue.latent[item])
        return (likeness * np.sqrt(users.strength[row])).max(axis=1).astype(np.float64)

    def _click_terms(self, visits: Visits, items: Ragged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Logit terms float64 [items]: of any intent, for the trigger, for the promotion."""
        config, catalogue = self.config, self.catalogue
        row = np.repeat(np.arange(len(items.lengths)), items.lengths)
        position = 1 + np.arange(len(row)) - items.offsets[row]
        always = config.quality_pull * catalogue.quality[items.values] - config.position_effect * np.log(position)
        likeness = np.einsum("nd,nd->n", catalogue.latent[items.values], catalogue.latent[visits.trigger[row]])
        promotion = config.interest_pull * self._fit(visits.users, row, items.values)
        promotion += config.deal_pull * catalogue.deal[items.values] + config.taste_pull * visits.users.taste[row]
        return always, config.trigger_pull * likeness.astype(np.float64), promotion

    def _purchase_terms(self, visits: Visits, items: Ragged) -> np.ndarray:
        row = np.repeat(np.arange(len(items.lengths)), items.lengths)
        fit = self._fit(visits.users, row, items.values)
        return fit + 0.5 * self.catalogue.deal[items.values] + 0.5 * visits.users.taste[row]

    def _integrated(
        self,
        visits: Visits,
        items: Ragged,
        intercept: float,
        always: np.ndarray,
        trigger: np.ndarray,
        promotion: np.ndarray,
    ) -> np.ndarray:
        intent = np.repeat(visits.intent, items.lengths)
        result = np.zeros(len(items.values))
        for share, term in ((intent, trigger), (1 - intent, promotion)):
            for node, weight in zip(NODES, WEIGHTS, strict=True):
                result += weight * share * _sigmoid(intercept + always + term + self.config.page_clickiness * node)
        return result

    @cached_property
    def _intercepts(self) -> tuple[float, float]:
        """Of clicks and of purchases: those that give the rates asked for, over a sample of the training pages."""
        parts = []
        for window in windows(self.config)["train"]:
            number = window.first + np.arange(0, window.pages, -(-self.config.train_pages // CALIBRATION_PAGES))
            visits = self.visits(window.promotion, number, window.times(number))
            items = self.exposures(visits, self.page_lengths(visits))
            parts.append((visits, items, self._click_terms(visits, items), self._purchase_terms(visits, items)))

        def click(intercept: float) -> np.ndarray:
            return np.concatenate([self._integrated(v, i, intercept, *terms) for v, i, terms, _ in parts])

        click_intercept = _solve(lambda b: float(click(b).mean()), self.config.click_rate)
        clicked, buys = click(click_intercept), np.concatenate([purchase for *_, purchase in parts])
        purchase_intercept = _solve(
            lambda b: float((clicked * _sigmoid(b + buys)).sum() / clicked.sum()), self.config.purchase_rate
        )
        return click_intercept, purchase_intercept


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _solve(mean_at: Callable[[float], float], target: float) -> float:
    """The intercept at which a mean of sigmoids is `target`; the logit of such a mean grows no faster than it."""
    intercept, step = 0.0, np.inf
    while abs(step) > 1e-6:
        mean = mean_at(intercept)
        step = np.log(target / (1 - target)) - np.log(mean / (1 - mean))
        intercept += step
    return float(intercept)


def _repeated(row: np.ndarray, values: np.ndarray, trigger: np.ndarray) -> np.ndarray:
    """bool [items]: which of the items, page-major, stand earlier on their page or are its trigger."""
    order = np.lexsort((values, row))
    repeated = values == trigger[row]
    after = order[1:]
    repeated[after] |= (values[after] == values[order[:-1]]) & (row[after] == row[order[:-1]])
    return repeated


def _last(lists: Ragged, most: int) -> Ragged:
    """The last values of each list, at most so many."""
    kept = np.minimum(lists.lengths, most)
    result = Ragged.from_lengths(lists.values, kept)
    row = np.repeat(np.arange(len(kept)), kept)
    index = lists.offsets[1:][row] - result.offsets[1:][row] + np.arange(len(row))
    return Ragged(lists.values[index], result.offsets)

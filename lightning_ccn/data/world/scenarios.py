"""Scenarios: the places in a shop where pages are shown, which differ in how they are used and in what they show."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.world.catalogue import Catalogue
from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig

INTENT = 2.0  # largest shift of the logit of coming for the trigger, up or down
CLICKS = 0.8  # largest shift of the logit of every click, up or down: a click rate of .2 becomes .10 to .36
CLICKINESS = (0.5, 1.5)  # smallest and largest factor of the knob page_clickiness
SLICE = (0.4, 0.8)  # smallest and largest share of all items in the categories that are shown
LENGTHS = 0.5  # width of the page lengths, as a share of the range from page_min to page_max


class Scenarios:
    """All scenarios of a world, drawn from the seed; scenario k is the same whatever their number.

    Each of these is drawn evenly within its bounds, and independently of the others:

    - the mix of intents: a shift of the logit of coming for the trigger, from -2 to 2, on top of the promotion's;
    - the click rate: a shift of the logit of every click, from -.8 to .8; the mean over all training pages stays that
      of the knob click_rate;
    - the page clickiness: .5 to 1.5 times the std of the knob page_clickiness;
    - the slice of the catalogue: categories in a random order, until they hold 40% to 80% of all items, or more by the
      last one. What the recommender would have taken from another category comes from the one in the slice that is
      most like it (the trigger itself may be of a category that is not shown);
    - the page length: uniform in a range half as wide as the one from page_min to page_max, anywhere within it.

    Row 0 changes nothing. The pages of a world with one scenario have it, and there is no other.

    Attributes:
        intent: Float64 [scenarios + 1], shift of the logit of coming for the trigger.
        clicks: Float64 [scenarios + 1], shift of the logit of a click.
        clickiness: Float64 [scenarios + 1], std of the page clickiness.
        shortest: Int64 [scenarios + 1], smallest number of items on a page.
        longest: Int64 [scenarios + 1], largest number of items on a page.
        shown: Bool [scenarios + 1, categories + 1], which categories are shown; column 0 means nothing.
        instead: Int64 [scenarios + 1, categories + 1], the category in the slice that stands for each category.
    """

    def __init__(self, config: WorldConfig, draws: Draws, catalogue: Catalogue) -> None:
        self.config, self._draws, self._catalogue = config, draws, catalogue
        rows = np.arange(config.scenarios + 1 if config.scenarios > 1 else 1)
        some = rows > 0
        low, high = CLICKINESS
        self.intent = np.where(some, INTENT * (2 * draws.uniform("scenario intent", rows) - 1), 0.0)
        self.clicks = np.where(some, CLICKS * (2 * draws.uniform("scenario clicks", rows) - 1), 0.0)
        factor = low + (high - low) * draws.uniform("scenario clickiness", rows)
        self.clickiness = config.page_clickiness * np.where(some, factor, 1.0)
        width = int(LENGTHS * (config.page_max - config.page_min))
        places = config.page_max - config.page_min - width + 1
        first = (draws.uniform("scenario page length", rows) * places).astype(np.int64)
        self.shortest = np.where(some, config.page_min + first, config.page_min)
        self.longest = np.where(some, self.shortest + width, config.page_max)
        self.shown = np.stack([self._slice(row) for row in range(len(rows))])
        self.instead = np.stack([catalogue.most_alike(shown) for shown in self.shown])

    def of_pages(self, page_id: np.ndarray) -> np.ndarray:
        """Int64 [pages] in [1, scenarios], the scenario of each page; 0 in a world with one scenario."""
        count = self.config.scenarios
        if count == 1:
            return np.zeros(len(page_id), np.int64)
        return 1 + (self._draws.uniform("scenario", page_id) * count).astype(np.int64)

    def warning(self) -> str | None:
        """What to say of scenarios that show every category; None if there are none."""
        whole = [row for row in range(1, len(self.shown)) if self.shown[row].all()]
        if not whole:
            return None
        return (
            f"world: {len(whole)} of {self.config.scenarios} scenarios show all {self.config.categories} categories, "
            "so they do not differ in what they show; raise categories"
        )

    def _slice(self, scenario: int) -> np.ndarray:
        """Bool [categories + 1]: the categories that a scenario shows."""
        categories = np.arange(1, self.config.categories + 1)
        shown = np.ones(self.config.categories + 1, bool)
        if scenario == 0:
            return shown
        low, high = SLICE
        share = low + (high - low) * self._draws.uniform("scenario slice", scenario)
        order = categories[np.argsort(self._draws.bits("scenario category", scenario, categories))]
        before = np.cumsum(self._catalogue.count[order]) - self._catalogue.count[order]
        shown[order] = before < share * self.config.items
        return shown

"""Items: category, seller, latent vector, quality, deal and popularity; and how users and the recommender pick one."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.world.draws import Draws, halves
from lightning_ccn.data.world.knobs import WorldConfig

CATEGORY_SHARE = 0.6  # share of the category's centre in the squared length of a latent vector
CHUNK = 1 << 20  # items that are generated at a time
CATEGORIES_AT_ONCE = 1 << 10  # that are compared with all others
CANDIDATES = 3  # number of items from which `Catalogue.pick` chooses
SHARPNESS = 4.0  # logit per unit of fit in this choice


class Catalogue:
    """A table of all items; 19 million items with 8 dimensions take about 1 GB. Row 0 is the unknown item.

    Attributes:
        category: Int32 [items + 1].
        seller: Int32 [items + 1].
        latent: Float32 [items + 1, dims], unit vectors.
        quality: Float32 [items + 1], N(0, 1); half of the variance comes from the seller.
        deal: Float32 [items + 1], N(0, 1): how good the item's offer in a promotion is.
        count: Int64 [categories + 1], number of items of each category.
    """

    def __init__(self, config: WorldConfig, draws: Draws) -> None:
        self.config, self._draws = config, draws
        categories = np.arange(1, config.categories + 1)
        # a mild Zipf law in random order of ids: the first of 40 categories is six times as frequent as the last
        weight = np.sqrt(1 / categories)[np.argsort(draws.bits("category order", categories))]
        self._category_edges = np.cumsum(weight / weight.sum())[:-1]
        self._centre = _unit(draws.normals("category centre", np.arange(config.categories + 1), dims=config.dims))
        rows = config.items + 1
        self.category, self.seller = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        self.latent = np.zeros((rows, config.dims), np.float32)
        self.quality, self.deal = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        popularity = np.zeros(rows, np.float32)
        # a seller has items in about an eighth of the categories
        reach = max(config.sellers // 8, -(-config.sellers // config.categories))
        for start in range(1, rows, CHUNK):
            item = np.arange(start, min(start + CHUNK, rows))
            category = self.draw_category("item category", item)
            category = np.where(item <= config.categories, item, category)  # so that no category is empty
            nearby = (draws.uniform("item seller", item) * reach).astype(np.int64)
            seller = 1 + ((category - 1) * config.sellers // config.categories + nearby) % config.sellers
            own, sellers = draws.normal("item quality", item), draws.normal("seller quality", seller)
            part = slice(start, start + len(item))
            self.category[part], self.seller[part] = category, seller
            self.latent[part] = self.around(category, "item latent", item)
            self.quality[part] = np.sqrt(0.5) * (own + sellers)
            self.deal[part] = draws.normal("item deal", item)
            # good items are somewhat more popular
            popularity[part] = 0.5 * self.quality[part] + draws.normal("item popularity", item)
        # item rows by category, the most popular first; a rank in [0, 1) does not mix categories
        rank = np.empty(rows)
        rank[np.argsort(-popularity)] = np.arange(rows) / rows
        self._order = np.argsort(self.category + rank)[1:].astype(np.int32)
        self.count = np.bincount(self.category[1:], minlength=config.categories + 1)
        self._start = np.cumsum(self.count) - self.count

    def draw_category(self, purpose: str, *counters: np.ndarray) -> np.ndarray:
        """Int64 in [1, categories]: categories drawn by popularity."""
        return 1 + np.searchsorted(self._category_edges, self._draws.uniform(purpose, *counters))

    def around(self, category: np.ndarray, purpose: str, *counters: np.ndarray) -> np.ndarray:
        """Float32 [..., dims]: random unit vectors near the categories' centres, for items and interests."""
        own = _unit(self._draws.normals(purpose, *counters, dims=self.config.dims))
        return _unit(np.sqrt(CATEGORY_SHARE) * self._centre[category] + np.sqrt(1 - CATEGORY_SHARE) * own)

    def most_alike(self, shown: np.ndarray) -> np.ndarray:
        """The category that stands for each category where only some are shown: itself, or the one most like it.

        Args:
            shown: Bool [categories + 1]; at least one category is shown, and entry 0, which means nothing, is True.

        Returns:
            Int64 [categories + 1].
        """
        found = np.arange(len(shown))
        allowed, hidden = np.flatnonzero(shown[1:]) + 1, np.flatnonzero(~shown)
        for start in range(0, len(hidden), CATEGORIES_AT_ONCE):
            some = hidden[start : start + CATEGORIES_AT_ONCE]
            # a product of unit vectors is a cosine
            found[some] = allowed[(self._centre[some] @ self._centre[allowed].T).argmax(axis=1)]
        return found

    def item_within(self, shown: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Items of the categories that are shown, all equally likely.

        Args:
            shown: Bool [categories + 1]; at least one category is shown.
            uniform: Float64 [n] in (0, 1), which items.

        Returns:
            Int64 [n], item rows.
        """
        allowed = np.flatnonzero(shown[1:]) + 1
        past = np.cumsum(self.count[allowed])
        place = (uniform * past[-1]).astype(np.int64)
        which = np.searchsorted(past, place, side="right")
        category = allowed[which]
        return self._order[self._start[category] + place - (past[which] - self.count[category])].astype(np.int64)

    def pick(
        self,
        purpose: str,
        *counters: np.ndarray,
        category: np.ndarray,
        wish: np.ndarray,
        deal: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draws an item of each category: a few candidates by popularity, then a softmax choice by fit to the wish.

        Args:
            purpose: Purpose of the draw, see `Draws`.
            counters: Counters of the draw, int [n] each.
            category: Int [n], category of each item.
            wish: Float32 [n, dims], unit vectors of the wanted items, or 0 for any item.
            deal: Bool [n], where a good deal raises the score too.

        Returns:
            Int64 [n], item rows.
        """
        bits = self._draws.bits(purpose, *(counter[:, None] for counter in counters), np.arange(CANDIDATES))
        which, luck = halves(bits)
        rank = which ** (1 + self.config.popularity_skew)
        index = self._start[category][:, None] + (rank * self.count[category][:, None]).astype(np.int64)
        item = self._order[index]
        score = SHARPNESS * np.einsum("ncd,nd->nc", self.latent[item], wish)
        if deal is not None:
            score += np.where(deal[:, None], self.deal[item], 0)
        best = np.argmax(score - np.log(-np.log(luck)), axis=1)  # Gumbel noise makes this a softmax choice
        return item[np.arange(len(item)), best].astype(np.int64)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))

"""Items: category, seller, latent vector, quality, deal, popularity; and how a recommender or a user picks one."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.world.draws import Draws, halves
from lightning_ccn.data.world.knobs import WorldConfig

CATEGORY_SHARE = 0.6  # of a latent vector's squared length: its category's centre
CHUNK = 1 << 20  # items at a time while the table is made
CANDIDATES = 3  # from which `Catalogue.pick` takes the one that fits best
SHARPNESS = 4.0  # logit per unit of fit in that choice


class Catalogue:
    """All items, as a table: 19 million of 8 dimensions take about 1 GB. Row 0 is the unknown item.

    Attributes:
        category: int32 [items + 1].
        seller: int32 [items + 1].
        latent: float32 [items + 1, dims], unit length.
        quality: float32 [items + 1], N(0, 1); half its variance is the seller's.
        deal: float32 [items + 1], N(0, 1): how good an offer the item makes in a promotion.
    """

    def __init__(self, config: WorldConfig, draws: Draws) -> None:
        self.config, self._draws = config, draws
        categories = np.arange(1, config.categories + 1)
        # a mild Zipf law, in no order of id: the rarest of 40 is six times as rare as the first
        weight = np.sqrt(1 / categories)[np.argsort(draws.bits("category order", categories))]
        self._category_edges = np.cumsum(weight / weight.sum())[:-1]
        self._centre = _unit(draws.normals("category centre", np.arange(config.categories + 1), dims=config.dims))
        rows = config.items + 1
        self.category, self.seller = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        self.latent = np.zeros((rows, config.dims), np.float32)
        self.quality, self.deal = np.zeros(rows, np.float32), np.zeros(rows, np.float32)
        popularity = np.zeros(rows, np.float32)
        # a seller keeps to about an eighth of the categories
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
        # rows by category, the most popular first; a rank in [0, 1) keeps each category's block together
        rank = np.empty(rows)
        rank[np.argsort(-popularity)] = np.arange(rows) / rows
        self._order = np.argsort(self.category + rank)[1:].astype(np.int32)
        self._count = np.bincount(self.category[1:], minlength=config.categories + 1)
        self._start = np.cumsum(self._count) - self._count

    def draw_category(self, purpose: str, *counters: np.ndarray) -> np.ndarray:
        """int64 in [1, categories]: a category, by its popularity."""
        return 1 + np.searchsorted(self._category_edges, self._draws.uniform(purpose, *counters))

    def around(self, category: np.ndarray, purpose: str, *counters: np.ndarray) -> np.ndarray:
        """float32 [..., dims]: unit vectors about the categories' centres; items and interests alike."""
        own = _unit(self._draws.normals(purpose, *counters, dims=self.config.dims))
        return _unit(np.sqrt(CATEGORY_SHARE) * self._centre[category] + np.sqrt(1 - CATEGORY_SHARE) * own)

    def pick(
        self,
        purpose: str,
        *counters: np.ndarray,
        category: np.ndarray,
        wish: np.ndarray,
        deal: np.ndarray | None = None,
    ) -> np.ndarray:
        """Items of given categories: of a few drawn by popularity, likely the one that fits the wish best.

        Args:
            purpose: of the draw.
            counters: int [n] each, of the draw.
            category: int [n].
            wish: float32 [n, dims], unit vectors, or 0 for any item.
            deal: bool [n], where a good deal counts too.

        Returns:
            int64 [n], item rows.
        """
        bits = self._draws.bits(purpose, *(counter[:, None] for counter in counters), np.arange(CANDIDATES))
        which, luck = halves(bits)
        rank = which ** (1 + self.config.popularity_skew)
        index = self._start[category][:, None] + (rank * self._count[category][:, None]).astype(np.int64)
        item = self._order[index]
        score = SHARPNESS * np.einsum("ncd,nd->nc", self.latent[item], wish)
        if deal is not None:
            score += np.where(deal[:, None], self.deal[item], 0)
        best = np.argmax(score - np.log(-np.log(luck)), axis=1)  # Gumbel noise: a softmax choice
        return item[np.arange(len(item)), best].astype(np.int64)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))

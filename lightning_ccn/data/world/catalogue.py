"""Items: category, seller, latent vector, quality, deal, popularity; and how a recommender or a user picks one."""

from __future__ import annotations

import numpy as np

from lightning_ccn.data.world.draws import Draws
from lightning_ccn.data.world.knobs import WorldConfig

CATEGORY_SHARE = 0.6  # of the squared length of a latent vector: what the category says
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
        # popular categories are about (20 / categories) as rare as the first: a mild Zipf law, in no order of id
        weight = (categories * 1.0) ** -0.5
        weight = weight[np.argsort(draws.bits("category order", categories))]
        self._category_edges = np.cumsum(weight / weight.sum())
        rows = config.items + 1
        self.category = np.zeros(rows, np.int32)
        self.seller = np.zeros(rows, np.int32)
        self.latent = np.zeros((rows, config.dims), np.float32)
        self.quality = np.zeros(rows, np.float32)
        self.deal = np.zeros(rows, np.float32)
        popularity = np.zeros(rows, np.float32)
        for start in range(1, rows, CHUNK):
            item = np.arange(start, min(start + CHUNK, rows))
            category = self.draw_category("item category", item)
            category = np.where(item <= config.categories, item, category)  # so none is empty
            # a seller keeps to a few categories
            spread = draws.uniform("item seller", item) * max(config.sellers // 8, 1)
            seller = 1 + (category * 31 + spread.astype(np.int64)) % config.sellers
            part = slice(start, start + len(item))
            self.category[part], self.seller[part] = category, seller
            self.latent[part] = self.around(category, "item latent", item)
            own, of_seller = draws.normal("item quality", item), draws.normal("seller quality", seller)
            self.quality[part] = np.sqrt(0.5) * (own + of_seller)
            self.deal[part] = draws.normal("item deal", item)
            # good items are somewhat more popular
            popularity[part] = 0.5 * self.quality[part] + draws.normal("item popularity", item)
        # rows by category, the most popular first; a rank in (0, 1) keeps each category's block together
        rank = np.empty(rows)
        rank[np.argsort(-popularity)] = np.arange(rows) / rows
        self._order = np.argsort(self.category + rank)[1:].astype(np.int32)
        self._count = np.bincount(self.category[1:], minlength=config.categories + 1)
        self._start = np.cumsum(self._count) - self._count

    def draw_category(self, purpose: str, *counters: np.ndarray) -> np.ndarray:
        """int64 in [1, categories]: a category, by its popularity."""
        return 1 + np.searchsorted(self._category_edges[:-1], self._draws.uniform(purpose, *counters))

    def around(self, category: np.ndarray, purpose: str, *counters: np.ndarray) -> np.ndarray:
        """float32 [..., dims]: unit vectors about the category's centre; items and interests alike."""
        dims = self.config.dims
        centre = _unit(self._draws.normals("category centre", category, dims=dims))
        own = _unit(self._draws.normals(purpose, *counters, dims=dims))
        return _unit(np.sqrt(CATEGORY_SHARE) * centre + np.sqrt(1 - CATEGORY_SHARE) * own)

    def pick(
        self,
        purpose: str,
        *counters: np.ndarray,
        category: np.ndarray,
        wish: np.ndarray,
        deal: np.ndarray | None = None,
    ) -> np.ndarray:
        """Items of given categories: a few drawn by popularity, of which the one that fits the wish is likely taken.

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
        rank = _unit_interval(bits >> np.uint64(32)) ** (1 + self.config.popularity_skew)
        index = self._start[category][:, None] + (rank * self._count[category][:, None]).astype(np.int64)
        item = self._order[index].astype(np.int64)
        score = SHARPNESS * np.einsum("ncd,nd->nc", self.latent[item], wish)
        if deal is not None:
            score += np.where(deal[:, None], self.deal[item], 0)
        gumbel = -np.log(-np.log(_unit_interval(bits & np.uint64(0xFFFFFFFF))))
        return item[np.arange(len(item)), np.argmax(score + gumbel, axis=1)]


def _unit_interval(bits32: np.ndarray) -> np.ndarray:
    return (bits32.astype(np.float64) + 0.5) * 2.0**-32


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))

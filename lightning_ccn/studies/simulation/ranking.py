"""What candidates are ranked by: the click, the order, or a mix of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

RankBy = Literal["click", "order", "mix"]
WAYS: tuple[RankBy, ...] = get_args(RankBy)


@dataclass(frozen=True)
class Ranking:
    """A way to rank candidates, best first.

    - `click`: by p(click).
    - `order`: by p(order) = p(click) p(order | click).
    - `mix`: by p(click)^a p(order)^(1 - a).

    Attributes:
        by: Which of them.
        click_share: The exponent a of the mix, between 0 (orders alone) and 1 (clicks alone).
    """

    by: RankBy
    click_share: float = 0.5

    @property
    def needs_orders(self) -> bool:
        """Whether a model needs an order head."""
        return self.by != "click"

    def key(self, system: str) -> str:
        """Name of a system that is ranked this way, in simulate.json."""
        return f"{system}:{self.by}" if self.needs_orders else system

    def title(self, system: str) -> str:
        """Title of a system that is ranked this way, in tables."""
        by = {
            "click": "",
            "order": ", by order",
            "mix": f", by click^{self.click_share:g} order^{1 - self.click_share:g}",
        }
        return f"{system}{by[self.by]}"

    def scores(self, click: np.ndarray, order: np.ndarray | None) -> np.ndarray:
        """Scores [candidates] that order candidates this way; a mix is given by its logarithm.

        Args:
            click: Float [candidates], p(click).
            order: Float [candidates], p(order); only ranking by clicks does without.
        """
        if self.by == "click":
            return click
        assert order is not None, "needs_orders says so"
        if self.by == "order":
            return order
        with np.errstate(divide="ignore"):  # a probability that was rounded to 0 comes last
            logs = np.log(click.astype(np.float64)), np.log(order.astype(np.float64))
        return self.click_share * logs[0] + (1 - self.click_share) * logs[1]

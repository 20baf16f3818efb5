"""Feed-forward networks over page features and item features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_ccn.nn.gather import gather


class PageMLP(nn.Module):
    """MLP(concat(page features, item features)) -> one value per item; the page's part is computed once per page.

    The first layer is linear, so it is the sum of a page term and an item term. This is the same function as an MLP on
    the concatenated vector, without a copy of the page's vector for each of its items.

    Args:
        page_dim, item_dim: Numbers of page features and item features.
        hidden: Widths of the hidden layers; at least one.
    """

    def __init__(self, page_dim: int, item_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.sizes = page_dim, item_dim, tuple(hidden)
        self.of_page = nn.Linear(page_dim, hidden[0], bias=False) if page_dim else None
        self.of_item = nn.Linear(item_dim, hidden[0])
        layers: list[nn.Module] = []
        for width, following in zip(hidden, [*hidden[1:], 1], strict=True):
            layers += [nn.ReLU(), nn.Linear(width, following)]
        self.rest = nn.Sequential(*layers)

    def forward(self, page_features: Tensor, item_features: Tensor, page: Tensor) -> Tensor:
        """Computes one value per item.

        Args:
            page_features: float [pages, page_dim].
            item_features: float [items, item_dim].
            page: int64 [items], the page of each item.

        Returns:
            float [items].
        """
        first = self.of_item(item_features)  # [items, hidden]
        if self.of_page is not None:
            first = first + gather(page, self.of_page(page_features))
        value: Tensor = self.rest(first).squeeze(1)
        return value

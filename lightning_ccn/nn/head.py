"""Feed-forward networks over page features and item features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import embedding as gather


class PageMLP(nn.Module):
    """MLP(concat(page features, item features)) -> one value an item, with the page's part computed once a page.

    The first layer is linear in the concatenation, so it is a sum of one term of the page and one of the item: the
    same function as on the concatenated vector, without copying the page's vector to each of its items.

    Args:
        page_dim, item_dim: numbers of page and item features.
        hidden: widths of the hidden layers, at least one.
    """

    def __init__(self, page_dim: int, item_dim: int, hidden: Sequence[int]) -> None:
        super().__init__()
        self.of_page = nn.Linear(page_dim, hidden[0], bias=False) if page_dim else None
        self.of_item = nn.Linear(item_dim, hidden[0])
        layers: list[nn.Module] = []
        for width, following in zip(hidden, [*hidden[1:], 1], strict=True):
            layers += [nn.ReLU(), nn.Linear(width, following)]
        self.rest = nn.Sequential(*layers)

    def forward(self, page_features: Tensor, item_features: Tensor, page: Tensor) -> Tensor:
        """One value an item.

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

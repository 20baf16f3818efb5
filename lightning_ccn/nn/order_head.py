"""The order head: p(order) = p(click) p(order | click), learned from all impressions (ESMM, Ma et al. 2018)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_ccn.nn.head import PageMLP


class OrderHead(nn.Module):
    """A second head beside a system's click head: same input, same widths, weights of its own.

    What is below both heads (embeddings, attention) is shared, and learns from orders too. The head gives the logit of
    p(order | click). No label of its own is needed for it: p(order) is compared with the orders of all impressions, so
    it is not only right for the clicked ones, which are a selection.

    It looks on while the click head is called, so that a system need not know of it.

    Args:
        system: The system. Its click head is the first `PageMLP` among its own layers; in DIAN, which has two, that is
            the one that sees the trigger.

    Raises:
        ValueError: The system has no `PageMLP`.
    """

    def __init__(self, system: nn.Module) -> None:
        super().__init__()
        heads = [layer for layer in system.children() if isinstance(layer, PageMLP)]
        if not heads:
            raise ValueError(
                f"{type(system).__name__} has no click head to copy for orders: give it a PageMLP (of "
                "lightning_ccn.nn.head) as a layer of its own, or leave order_weight out"
            )
        self.mlp = PageMLP(*heads[0].sizes)
        self._conversion: Tensor | None = None
        heads[0].register_forward_hook(self._look_on)

    def _look_on(self, head: nn.Module, inputs: Any, click_logit: Tensor) -> None:
        self._conversion = self.mlp(*inputs)

    def conversion(self) -> Tensor:
        """The logit of p(order | click) of the items that the system has just scored: float [items].

        It can be asked for once after each call of the system, so that no graph is kept longer than it is needed.
        """
        found, self._conversion = self._conversion, None
        assert found is not None, "the system comes first, and calls its head"
        return found


def order_logit(click: Tensor, conversion: Tensor) -> Tensor:
    """The logit of p(click) p(order | click), from both logits.

    1 / p = (1 + exp(-click)) (1 + exp(-conversion)), so the odds against it are a sum of three exponentials. Computed
    by their logarithms, it is finite for every finite input, and exact where a product of probabilities is 0 or 1.

    All float [items]; the result is float32 or, of float64, float64.

    >>> order_logit(torch.tensor([0.0, 200.0, 1e4]), torch.tensor([0.0, -300.0, 1e4]))
    tensor([-1.0986e+00, -3.0000e+02,  9.9993e+03])
    """
    exact = torch.promote_types(torch.promote_types(click.dtype, conversion.dtype), torch.float32)
    click, conversion = click.to(exact), conversion.to(exact)
    return -torch.stack([-click, -conversion, -click - conversion]).logsumexp(0)


def order_loss(click: Tensor, conversion: Tensor, orders: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean cross entropy of p(order) and the orders, over all impressions.

    Args:
        click: Float [items], the logit of p(click).
        conversion: Float [items], the logit of p(order | click).
        orders: Float [items] in {0, 1}.
        weight: Float [items], how much each item counts; None: all alike.

    Returns:
        Scalar float32 (float64 for float64 logits); for a batch without items a 0 that is still part of the graph.
    """
    logit = order_logit(click, conversion)
    orders = orders.to(logit.dtype)
    return binary_cross_entropy_with_logits(logit, orders, weight=weight, reduction="sum") / max(orders.numel(), 1)

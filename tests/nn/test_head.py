"""The page-major head is the plain MLP of the concatenation."""

from __future__ import annotations

import torch

from lightning_ccn.nn.collaborative import CollaborativeModule
from lightning_ccn.nn.head import PageMLP


def test_the_page_major_head_equals_the_mlp_of_the_concatenation() -> None:
    torch.manual_seed(0)
    head = PageMLP(5, 3, [8, 4])
    pages, items, page = torch.randn(2, 5), torch.randn(6, 3), torch.tensor([0, 0, 1, 1, 1, 1])
    assert head.of_page is not None
    weight = torch.cat([head.of_page.weight, head.of_item.weight], 1)
    copied = torch.cat([pages[page], items], 1)
    expected = head.rest(copied @ weight.T + head.of_item.bias).squeeze(1)
    torch.testing.assert_close(head(pages, items, page), expected)


def test_a_sigmoid_degree_stays_between_zero_and_one_and_a_free_one_does_not() -> None:
    torch.manual_seed(0)
    user, target, trigger, page = torch.randn(1, 4), 50 * torch.randn(30, 6), torch.randn(1, 6), torch.zeros(30).long()
    bounded = CollaborativeModule(4, 6, [8], bound="sigmoid")(user, target, trigger, page)[0]
    free = CollaborativeModule(4, 6, [8], bound="none")(user, target, trigger, page)[0]
    assert (bounded >= 0).all()
    assert (bounded <= 1).all()
    assert free.abs().max() > 1


def test_freshly_made_embeddings_already_tell_degrees_apart() -> None:
    """The dead start: at +-0.05 the product of two embeddings is 0.001, and only the gain lets it be seen."""
    torch.manual_seed(0)
    target, trigger = (torch.rand(200, 48) - 0.5) / 10, (torch.rand(1, 48) - 0.5) / 10
    user, page = torch.zeros(1, 4), torch.zeros(200).long()
    spread = {}
    for gain in (1.0, 20.0):
        torch.manual_seed(1)
        spread[gain] = CollaborativeModule(4, 48, [64], gain=gain)(user, target, trigger, page)[0].std()
    assert spread[20.0] > 10 * spread[1.0]

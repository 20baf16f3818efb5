"""The count of floating-point operations and bytes, against counts by hand."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.work import counted


def test_a_linear_layer_takes_two_operations_a_weight_and_row_and_twice_that_backwards() -> None:
    layer, x = nn.Linear(5, 7, bias=False), torch.rand(11, 5, requires_grad=True)
    with counted() as forward:
        loss = layer(x).sum()
    with counted() as backward:
        loss.backward()
    assert forward.flops == 2 * 11 * 5 * 7
    assert backward.flops == 2 * forward.flops  # gradients of the weights and of x


def test_attention_on_a_cpu_takes_two_products_and_five_backwards() -> None:
    segments, heads, queries, keys, dim = 3, 2, 5, 7, 8
    q = torch.rand(segments, heads, queries, dim, requires_grad=True)
    k, v = (torch.rand(segments, heads, keys, dim, requires_grad=True) for _ in range(2))
    mask = torch.ones(segments, 1, 1, keys, dtype=torch.bool)
    product = 2 * segments * heads * queries * keys * dim
    with counted() as forward:
        loss = scaled_dot_product_attention(q, k, v, attn_mask=mask).sum()
    with counted() as backward:
        loss.backward()
    assert forward.flops == 2 * product  # scores, and the weighted sum
    assert backward.flops == 5 * product  # the scores once more, and four gradients


def test_bytes_are_what_an_operation_reads_and_writes_and_a_view_is_free() -> None:
    x, y = torch.rand(6, 4), torch.rand(6, 4)
    with counted() as sum_of_two:
        x + y
    with counted() as views:
        x.view(3, 8)[1:].t()
    assert sum_of_two.bytes == 3 * 6 * 4 * 4
    assert views.bytes == 0

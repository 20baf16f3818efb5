"""The size of attention heads that GPUs compute fast in bf16."""

from __future__ import annotations

from torch import nn

from lightning_ccn.nn.attention import TargetAttention

ALIGNED = 8  # the fast kernels of scaled_dot_product_attention take heads of a multiple of so many values in bf16


def slow_heads(module: nn.Module) -> str | None:
    """Which `heads` or `dim` to choose instead, if a module's attention has heads of a slow size.

    Args:
        module: A module with any number of `TargetAttention` layers.

    Returns:
        A sentence, or None if there is nothing to improve.
    """
    for layer in module.modules():
        if isinstance(layer, TargetAttention) and (size := layer.query.in_features // layer.heads) % ALIGNED:
            width, heads = layer.query.in_features, layer.heads
            fit = [n for n in range(1, width // ALIGNED + 1) if width % (n * ALIGNED) == 0]
            nearest = [max((n for n in fit if n < heads), default=0), min((n for n in fit if n > heads), default=0)]
            known = " or ".join(str(n) for n in nearest if n)
            return (
                f"the attention splits vectors of {width} values into {heads} heads of {size}, and in bf16 a GPU has "
                f"fast kernels only for heads of a multiple of {ALIGNED}: "
                + (f"choose heads {known}" if known else f"make dim a multiple of {ALIGNED}")
            )
    return None

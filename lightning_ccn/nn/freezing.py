"""Freezing tables and layers, for fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_ccn.nn.order_head import OrderHead
from lightning_ccn.nn.tables import ItemTables, UserTables

ORDER_HEAD = "order_head"


def freeze(model: nn.Module, names: Sequence[str], order_head: OrderHead | None = None) -> None:
    """Freezes tables by name, and layers by the beginning of their parameters' names.

    A frozen table is looked up without a gradient, so its optimizer, which runs inside the backward pass, has nothing
    to do.

    Args:
        model: A system, before it is sharded.
        names: Tables (`item`, `user`, ...) and layers (`head`, `target_short.query`, ...) with everything in them.
            `order_head` is the order head.
        order_head: The one beside the system; None: there is none.

    Raises:
        ValueError: A name matches no table and no layer, or no layer is left to train.

    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> freeze(model, ["0"])
    >>> [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    ['1.weight', '1.bias']
    """
    lookups = [module for module in model.modules() if isinstance(module, UserTables | ItemTables)]
    of_tables = {id(parameter) for lookup in lookups for parameter in lookup.parameters()}
    layers = {name: p for name, p in model.named_parameters() if id(p) not in of_tables}
    if order_head is not None:
        layers |= dict(order_head.named_parameters(prefix=ORDER_HEAD))
    for name in names:
        holding = [lookup for lookup in lookups if name in lookup.tables.values()]
        held = [p for full, p in layers.items() if f"{full}.".startswith(f"{name}.")]
        if not holding and not held:
            tables = sorted({table for lookup in lookups for table in lookup.tables.values()})
            parts = sorted({full.split(".")[0] for full in layers})
            raise ValueError(
                f"freeze: no table or layer is named '{name}'; tables: {', '.join(tables)}; "
                f"layers: {', '.join(parts)}, and their parts"
            )
        for lookup in holding:
            lookup.frozen.add(name)
        for parameter in held:
            parameter.requires_grad_(False)
    if names and not any(parameter.requires_grad for parameter in layers.values()):
        raise ValueError("freeze: every layer is frozen, and training tables alone is not supported; leave a layer out")

"""What a module looks up for a batch, and what its layers keep for the backward pass, without its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torchrec import EmbeddingBagCollection, JaggedTensor, KeyedJaggedTensor, KeyedTensor

from lightning_ccn.sharding.tables import collections, table_configs
from lightning_ccn.sharding.torchrec_private import embedding_names
from lightning_ccn.sharding.traffic import Lookup


def measure(module: nn.Module, forward: Callable[[], Any]) -> tuple[dict[str, Lookup], int]:
    """Run a forward pass with vectors of zeros in place of the tables, which may be on the meta device.

    Args:
        module: A module whose tables are plain collections, with its layers on the CPU.
        forward: Runs it on a batch.

    Returns:
        What the batch looks up in each table, and the bytes that autograd keeps for the backward pass.
    """
    lookups: dict[str, Lookup] = {}
    kept: dict[int, int] = {}  # address of a storage -> its bytes
    weights = {parameter.untyped_storage().data_ptr() for parameter in module.parameters() if not parameter.is_meta}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    with _without_tables(module, lookups), saved_tensors_hooks(keep, lambda value: value):
        result = forward()  # keeps the graph until all is counted, so that no address is used twice
    del result
    return lookups, sum(kept.values())


@contextmanager
def _without_tables(module: nn.Module, lookups: dict[str, Lookup]) -> Iterator[None]:
    found: list[Any] = [collection for _, collection, _ in collections(module)]
    for collection in found:
        collection.forward = _zeros(collection, lookups)
    try:
        yield
    finally:
        for collection in found:
            del collection.forward  # the class's own shows again


def _zeros(collection: Any, lookups: dict[str, Lookup]) -> Callable[[KeyedJaggedTensor], Any]:
    """A `forward` that counts, and returns zeros of the right shapes."""
    configs = table_configs(collection)

    def count(features: KeyedJaggedTensor) -> None:
        for config in configs:
            of_table = [features[name] for name in config.feature_names]
            rows = torch.cat([one.values() for one in of_table])
            lookups[config.name] = Lookup(
                ids=len(rows),
                bags=sum(one.lengths().numel() for one in of_table),
                id_bytes=features.values().element_size(),
                length_bytes=features.lengths().element_size(),
                rows=rows,
            )

    def pooled(features: KeyedJaggedTensor) -> KeyedTensor:
        count(features)
        dims = [config.embedding_dim for config in configs for _ in config.feature_names]
        values = torch.zeros(features.stride(), sum(dims), requires_grad=True)
        return KeyedTensor(embedding_names(collection), dims, values)

    def unpooled(features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        count(features)
        dims = {name: config.embedding_dim for config in configs for name in config.feature_names}
        return {
            name: JaggedTensor(
                torch.zeros(features[name].values().numel(), dim, requires_grad=True), lengths=features[name].lengths()
            )
            for name, dim in dims.items()
        }

    return pooled if isinstance(collection, EmbeddingBagCollection) else unpooled

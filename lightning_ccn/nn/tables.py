"""Embedding tables: profile features pooled per page, and each distinct item of a batch looked up once.

Modules hold plain TorchRec collections and never mention ranks; a strategy shards them from outside. Inside
`tables_on("meta")` a table takes no memory until its shards are made, so tables larger than this machine can be built.
Outside it, a model is an ordinary module that runs unsharded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, EmbeddingCollection, EmbeddingConfig, PoolingType
from torchrec.modules.embedding_configs import DataType

from lightning_ccn.data.batch import PageBatch
from lightning_ccn.data.schema import Feature, Schema
from lightning_ccn.nn.gather import gather

ItemKernel = Literal["auto", "bag", "sequence"]
TableDtype = Literal["fp32", "fp16"]
_DATA_TYPES: dict[TableDtype, DataType] = {"fp32": DataType.FP32, "fp16": DataType.FP16}

# (where tables are placed, type of the device that will look them up)
_device: ContextVar[tuple[str, str] | None] = ContextVar("tables_on", default=None)


@contextmanager
def tables_on(device: str, for_device: str = "cpu") -> Iterator[None]:
    """Tables that are made inside this context are placed on `device`; others on torch's default device.

    Args:
        device: Where the tables are placed; `meta` takes no memory.
        for_device: Type of the device that will look them up, `cpu` or `cuda`: what the kernel `auto` goes by.
    """
    token = _device.set((device, for_device))
    try:
        yield
    finally:
        _device.reset(token)


def table_device() -> torch.device:
    """The device on which a table made now is placed."""
    chosen = _device.get()
    return torch.device(chosen[0]) if chosen else torch.get_default_device()


def lookup_device_type() -> str:
    """Type of the device that will look up a table made now; outside `tables_on`, where the table is placed."""
    chosen = _device.get()
    return chosen[1] if chosen else torch.get_default_device().type


@dataclass
class Embedded:
    """A batch's embeddings.

    Attributes:
        user: float [pages, user_dim], the profile and the page's numbers.
        item: float [distinct, item_dim], every distinct item of the batch.
        target: float [items, item_dim].
        trigger: float [pages, item_dim].
        numbers: float [items, number_dim], the target's numbers, and what it has in common with the trigger.
    """

    user: Tensor
    item: Tensor
    target: Tensor
    trigger: Tensor
    numbers: Tensor


class PageEmbedding(nn.Module):
    """E_user, E_target, E_trigger and the items of the sequences: the embedding layer that all systems share.

    Whatever a schema declares arrives here, so a system needs no change for a new feature.

    Args:
        schema: Tables and features.
        dim: Width of each feature's embedding.
        kernel: Lookup kernel of the tables, see `ItemTables` and `UserTables`.
        dtype: Type of the tables' values in memory; the embeddings are float32 with either. `fp16` halves the memory
            of the weights (the optimizer's state stays float32). A checkpoint of one type loads as the other.
    """

    def __init__(self, schema: Schema, dim: int, kernel: ItemKernel = "auto", dtype: TableDtype = "fp32") -> None:
        super().__init__()
        self.users = UserTables(schema, dim, kernel, dtype)
        self.items = ItemTables(schema, dim, kernel, dtype)
        self.user_dim = self.users.dim + len(schema.page_numbers)
        self.vectors = ItemVectors(schema.vectors, dim) if schema.vectors else None
        self.item_dim = self.items.dim + (self.vectors.dim if self.vectors else 0)
        self.same_as_trigger = schema.same_as_trigger
        self.number_dim = len(schema.numbers) + len(self.same_as_trigger) + len(schema.ratio_to_trigger)

    @torch.compiler.disable  # ids travel between ranks here
    def forward(self, batch: PageBatch) -> Embedded:
        """The batch's embeddings; shapes in `Embedded`."""
        item, user = self.items(batch), self.users(batch)  # [distinct, item_dim], [pages, .]
        if self.vectors is not None and batch.vectors is not None:
            item = torch.cat([item, self.vectors(batch.vectors)], 1)
        if batch.page_numbers.shape[1]:
            user = torch.cat([user, batch.page_numbers], 1)
        numbers = batch.numbers
        if self.same_as_trigger:
            alike = torch.stack([batch.same_as_trigger(name) for name in self.same_as_trigger], 1)
            numbers = torch.cat([numbers, alike.to(numbers.dtype)], 1)
        if batch.logarithms is not None:
            ratio = batch.logarithms[batch.target] - batch.logarithms[batch.trigger][batch.page]
            numbers = torch.cat([numbers, ratio.nan_to_num(nan=0.0)], 1)
        return Embedded(user, item, gather(batch.target, item), gather(batch.trigger, item), numbers)


class UserTables(nn.Module):
    """Profile features: summed within a feature, concatenated over features.

    A profile feature whose values are item ids or item attributes (favourite categories, say) has a table of its own,
    named `user_<table>`: plans and checkpoints need unique table names.

    With the kernel `sequence`, each value is looked up unpooled, and pooled here: row by row over many ranks, each
    vector then travels once, as in `ItemTables`. One collection has all features: a further one costs an exchange.

    Args:
        kernel: `auto` chooses by the device that will look the tables up, see `tables_on`.

    Shape: batch -> float [pages, features * dim].
    """

    def __init__(self, schema: Schema, dim: int, kernel: ItemKernel = "auto", dtype: TableDtype = "fp32") -> None:
        super().__init__()
        of_items = {feature.table for feature in schema.item}
        own = {f.table: f"user_{f.table}" if f.table in of_items else f.table for f in schema.user}
        self.tables = {f.name: own[f.table] for f in schema.user}  # by feature
        self.frozen: set[str] = set()  # names of tables without a gradient, see `nn.freezing`
        self.dim = len(self.tables) * dim
        self.many = {feature.name for feature in schema.user if feature.many}
        self.kernel = _chosen(kernel)
        if self.tables:
            make = _bags if self.kernel == "bag" else _sequences
            self.collection = make(schema, schema.user, dim, dtype, own)

    def forward(self, batch: PageBatch) -> Tensor:
        """float [pages, features * dim]."""
        if not self.tables:  # a log without any profile feature, not even a user id
            return torch.zeros(batch.pages, 0, device=batch.page_lengths.device)
        looked_up = self.collection(batch.user)
        if self.kernel == "bag":
            return _concatenate(looked_up.to_dict(), self.tables, self.frozen)
        vectors = {name: looked_up[name].values() for name in self.tables}  # [values, dim], or [pages, dim]
        for name in self.many:
            each = torch.arange(vectors[name].shape[0], device=vectors[name].device)
            vectors[name] = _summed(vectors[name], each, batch.user[name].lengths())
        return _concatenate(vectors, self.tables, self.frozen)


class ItemTables(nn.Module):
    """Item features of the batch's distinct items: summed within a feature, concatenated over features.

    The lookup kernel is chosen here and nowhere else. On the CPU, the backward pass of an unpooled lookup is 10 to 60
    times slower than that of a bag, so each item is a bag of one (`bag`). On many GPUs, a row-wise sharded bag of one
    costs a dense reduce-scatter, so the unpooled collection (`sequence`), which moves each vector once, is better. Both
    give the same result and use the same table names.

    Args:
        kernel: `auto` chooses by the device that will look the tables up, see `tables_on`.

    Shape: batch -> float [distinct, features * dim].
    """

    def __init__(self, schema: Schema, dim: int, kernel: ItemKernel = "auto", dtype: TableDtype = "fp32") -> None:
        super().__init__()
        self.tables = {feature.name: feature.table for feature in schema.item}
        self.single = [feature.name for feature in schema.attributes if not feature.many]
        self.many = [feature.name for feature in schema.attributes if feature.many]
        self.frozen: set[str] = set()
        self.dim = len(self.tables) * dim
        self.kernel = _chosen(kernel)
        make = _bags if self.kernel == "bag" else _sequences
        self.collection = make(schema, schema.item, dim, dtype)

    def forward(self, batch: PageBatch) -> Tensor:
        """float [distinct, features * dim]."""
        looked_up = self.collection(batch.item)
        if self.kernel == "bag":
            bags, counts = looked_up.to_dict(), batch.item.length_per_key()
            rows = {name: bags[name][:count] for name, count in zip(batch.item.keys(), counts, strict=True)}
        else:
            rows = {name: looked_up[name].values() for name in self.tables}
        for name, place in zip(self.single, batch.attribute, strict=True):
            rows[name] = gather(place, rows[name])
        for name in self.many:
            assert batch.attribute_lists is not None  # the schema has this attribute
            lists = batch.attribute_lists[name]
            rows[name] = _summed(rows[name], lists.values(), lists.lengths())
        return _concatenate(rows, self.tables, self.frozen)


class ItemVectors(nn.Module):
    """Frozen vectors of items, each brought to the width of an embedding by a linear layer, without a bias.

    So an item without a vector, which has zeros, gets zeros.

    Args:
        widths: Width of each vector, by name.
        dim: Width of an embedding.

    Shape: float [distinct, sum of the widths] -> float [distinct, vectors * dim].
    """

    def __init__(self, widths: Mapping[str, int], dim: int) -> None:
        super().__init__()
        self.widths, self.dim = list(widths.values()), len(widths) * dim
        layers = {name: nn.Linear(width, dim, bias=False) for name, width in widths.items()}
        for layer in layers.values():
            _small(layer.weight)  # a vector of length 1 starts as large as a row of a table
        self.linear = nn.ModuleDict(layers)

    def forward(self, vectors: Tensor) -> Tensor:
        """float [distinct, vectors * dim]."""
        parts = zip(self.linear.values(), vectors.split(self.widths, 1), strict=True)
        return torch.cat([linear(part) for linear, part in parts], 1)


def _summed(vectors: Tensor, index: Tensor, lengths: Tensor) -> Tensor:
    """Float [rows, dim], the sum of each row's vectors; zeros for a row without any.

    Args:
        vectors: Float [vectors, dim].
        index: Int64 [values], the vector of each value, row by row.
        lengths: Int64 [rows], how many values each row has.
    """
    return embedding_bag(index, vectors.float(), lengths.cumsum(0) - lengths, mode="sum")


def _concatenate(vectors: Mapping[str, Tensor], tables: Mapping[str, str], frozen: set[str]) -> Tensor:
    """Concatenates in the features' order: a sharded collection returns its columns in the order of its plan."""
    parts = [vectors[n].detach() if table in frozen else vectors[n] for n, table in tables.items()]
    joined = torch.cat(parts, dim=1)
    return joined if joined.dtype == torch.float32 else joined.float()  # an unsharded fp16 table returns fp16


def _chosen(kernel: ItemKernel) -> ItemKernel:
    if kernel != "auto":
        return kernel
    return "sequence" if lookup_device_type() == "cuda" else "bag"


def _bags(
    schema: Schema,
    features: Sequence[Feature],
    dim: int,
    dtype: TableDtype,
    names: Mapping[str, str] | None = None,
) -> EmbeddingBagCollection:
    return EmbeddingBagCollection(
        device=table_device(),
        tables=[
            EmbeddingBagConfig(
                name=names[table] if names else table,
                embedding_dim=dim,
                num_embeddings=schema.tables[table].rows,
                feature_names=[f.name for f in features if f.table == table],
                pooling=PoolingType.SUM,
                init_fn=_small,
                data_type=_DATA_TYPES[dtype],
            )
            for table in dict.fromkeys(f.table for f in features)
        ],
    )


def _sequences(
    schema: Schema,
    features: Sequence[Feature],
    dim: int,
    dtype: TableDtype,
    names: Mapping[str, str] | None = None,
) -> EmbeddingCollection:
    return EmbeddingCollection(
        device=table_device(),
        tables=[
            EmbeddingConfig(
                name=names[table] if names else table,
                embedding_dim=dim,
                num_embeddings=schema.tables[table].rows,
                feature_names=[f.name for f in features if f.table == table],
                init_fn=_small,
                data_type=_DATA_TYPES[dtype],
            )
            for table in dict.fromkeys(f.table for f in features)
        ],
    )


# The same small range for every table. TorchRec's default shrinks with the number of rows: a table of millions of rows
# would start at 1e-4, and products of two embeddings at almost zero.
_small = partial(nn.init.uniform_, a=-0.05, b=0.05)

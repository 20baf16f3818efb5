"""The embedding tables of a module: finding them, initialising their rows, and reading their shards.

A table is one entry of a TorchRec `EmbeddingBagCollection` (the "bag" kernel: pooled vectors) or `EmbeddingCollection`
(the "sequence" kernel: one vector per id). Plans, messages and checkpoints refer to a table by its own name, so the
kernel that looks it up may change from one run to the next.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchrec import EmbeddingBagCollection, EmbeddingCollection
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import ShardedTensor
from torchrec.modules.embedding_configs import data_type_to_dtype

from lightning_ccn.sharding.errors import ShardingError

# Rows are initialised in blocks of this many, each with its own seed, so that a table's initial rows do not depend on
# the world size and the plan.
INIT_BLOCK = 65_536

# Each kind of collection -> its child that holds one module per table. The child's name is part of state-dict names.
BAGS, SEQUENCES = "embedding_bags", "embeddings"
_TABLES_CHILD = {
    EmbeddingBagCollection: BAGS,
    EmbeddingCollection: SEQUENCES,
    ShardedEmbeddingBagCollection: BAGS,
    ShardedEmbeddingCollection: SEQUENCES,
}
TRAINABLE = (torch.float32, torch.float16)  # what fbgemm's kernels can train, on CPUs and GPUs
InitFn = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class EmbeddingTable:
    """One embedding table: `rows` x `dim` values of `dtype`.

    Attributes:
        name: Name of the table, unique in the module.
        rows: Number of rows.
        dim: Width of a row.
        dtype: Type of the values.
        kernel: `bag` or `sequence`.
        path: Path of the collection in the module.
    """

    name: str
    rows: int
    dim: int
    dtype: torch.dtype = torch.float32
    kernel: str = "bag"
    path: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of the weights of one row."""
        return self.dim * self.dtype.itemsize


def collections(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """Every collection once, sharded or not, as (path, collection, name of the child that holds its tables)."""
    for path, child in module.named_modules():
        if type(child) in _TABLES_CHILD:
            yield path, child, _TABLES_CHILD[type(child)]


def find_tables(module: nn.Module) -> list[EmbeddingTable]:
    """The tables of every plain collection in `module`.

    Raises:
        ShardingError: There are no tables, two have one name, one has a type that cannot be trained, or TorchRec
            cannot shard a collection of this class.
    """
    tables: dict[str, EmbeddingTable] = {}
    for path, child in module.named_modules():
        if isinstance(child, EmbeddingBagCollection | EmbeddingCollection) and type(child) not in _TABLES_CHILD:
            raise ShardingError(
                f"{path} is a {type(child).__name__}: TorchRec shards a {type(child).__bases__[0].__name__}, but no "
                "subclass of it; make the collection a submodule of your class instead"
            )
        if type(child) not in (EmbeddingBagCollection, EmbeddingCollection):
            continue
        for config in table_configs(child):
            if config.name in tables:
                raise ShardingError(
                    f"two tables are named {config.name!r} (in {tables[config.name].path} and {path}): plans and "
                    "checkpoints refer to a table by its name, so give each table its own name"
                )
            if (dtype := data_type_to_dtype(config.data_type)) not in TRAINABLE:
                raise ShardingError(
                    f"table {config.name!r} has data_type {config.data_type.name}, which fbgemm's kernels cannot "
                    "train: use DataType.FP16 for tables in half precision, or FP32"
                )
            tables[config.name] = EmbeddingTable(
                name=config.name,
                rows=config.num_embeddings,
                dim=config.embedding_dim,
                dtype=dtype,
                kernel="bag" if isinstance(child, EmbeddingBagCollection) else "sequence",
                path=path,
            )
    if not tables:
        raise ShardingError(
            "the module has no EmbeddingBagCollection and no EmbeddingCollection to shard: build them in "
            "configure_model (device='meta'), or train it with strategy=ddp"
        )
    return list(tables.values())


def table_configs(collection: Any) -> list[Any]:
    """The configs of the tables of a plain collection."""
    bags = isinstance(collection, EmbeddingBagCollection)
    configs: list[Any] = collection.embedding_bag_configs() if bags else collection.embedding_configs()
    return configs


def initial_rows(module: nn.Module) -> dict[str, InitFn | Tensor]:
    """For each table of `module`, its rows if they exist, or its `init_fn` if the table is on the meta device."""
    start: dict[str, InitFn | Tensor] = {}
    for _, collection, child in collections(module):
        for config in table_configs(collection):
            weight = getattr(collection, child)[config.name].weight
            start[config.name] = config.init_fn if weight.is_meta else weight.detach()
    return start


def draw_rows(module: nn.Module, start: dict[str, InitFn | Tensor], seed: int) -> None:
    """Initialise this rank's rows of every sharded table, independently of the world size and the plan.

    TorchRec initialises each shard with the process's random generator. Ranks with the same seed then get the same
    rows, and a table's rows depend on how it is split. Here, the seed of each block of `INIT_BLOCK` rows is a hash of
    `seed`, the table's name and the block's first row. An `init_fn` gets one block at a time, so it must treat all
    rows alike.

    Args:
        module: The module, with sharded tables.
        start: What `initial_rows` returned before the tables were sharded.
        seed: The same on every rank.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        for name, table in sharded_tables(module).items():
            rows, dim = table.metadata().size
            source = start[name]
            for shard in table.local_shards():
                row, column = shard.metadata.shard_offsets
                height, width = shard.metadata.shard_sizes
                if isinstance(source, Tensor):
                    shard.tensor.copy_(source[row : row + height, column : column + width])
                    continue
                for first in range(row - row % INIT_BLOCK, row + height, INIT_BLOCK):
                    block = torch.empty(min(INIT_BLOCK, rows - first), dim)
                    torch.default_generator.manual_seed(_seed(seed, name, first))
                    source(block)
                    low, high = max(first, row), min(first + len(block), row + height)
                    part = block[low - first : high - first, column : column + width]
                    shard.tensor[low - row : high - row].copy_(part)


def _seed(seed: int, name: str, row: int) -> int:
    digest = hashlib.blake2b(f"{seed}/{name}/{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def table_keys(module: nn.Module) -> dict[str, str]:
    """Name of each table's weight in the state dict -> its name in a checkpoint, `tables.<name>.weight`."""
    keys: dict[str, str] = {}
    for path, collection in module.named_modules(remove_duplicate=False):  # a shared collection has several names
        if child := _TABLES_CHILD.get(type(collection)):
            prefix = f"{path}.{child}" if path else child
            keys |= {f"{prefix}.{name}.weight": f"tables.{name}.weight" for name in getattr(collection, child)}
    return keys


def sharded_tables(module: nn.Module) -> dict[str, ShardedTensor]:
    """Every sharded table by name; its local shards are views of the weights in use."""
    return {
        key.removeprefix(f"{child}.").removesuffix(".weight"): value
        for _, collection, child in collections(module)
        for key, value in collection.state_dict().items()
    }


@contextmanager
def tables_hidden(module: nn.Module) -> Iterator[None]:
    """Remove the sharded tables' weights from `module.parameters()` within the `with` block."""
    hidden = []
    for _, collection, child in collections(module):
        for holder in getattr(collection, child).values():
            hidden.append((holder, holder.weight))
            del holder.weight
    try:
        yield
    finally:
        for holder, weight in hidden:
            holder.register_parameter("weight", weight)


def dense_names(module: nn.Module) -> dict[Tensor, str]:
    """Every parameter that is not a table -> its name."""
    with tables_hidden(module):
        return {parameter: name for name, parameter in module.named_parameters()}

"""The embedding tables of a module: what they are, and how their first rows are drawn.

A table is one entry of a TorchRec `EmbeddingBagCollection` ("bag" kernel: pooled) or `EmbeddingCollection`
("sequence" kernel: one vector an id). It is known by its own name everywhere: in plans, in messages, and in
checkpoints, so that the kernel that looks it up may change from one run to the next.
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

# ShardedRows are drawn in blocks of this many, each from a seed of its own, so that a table starts with the same rows
# whatever the world size and the plan.
INIT_BLOCK = 65_536

# The child of each kind of collection that holds one module a table, and with it the name in the state dict.
BAGS, SEQUENCES = "embedding_bags", "embeddings"
_CHILD = {
    EmbeddingBagCollection: BAGS,
    EmbeddingCollection: SEQUENCES,
    ShardedEmbeddingBagCollection: BAGS,
    ShardedEmbeddingCollection: SEQUENCES,
}
InitFn = Callable[[Tensor], Tensor | None]


@dataclass(frozen=True)
class EmbeddingTable:
    """One embedding table: `rows` x `dim` values of `dtype`, in the collection at `path`."""

    name: str
    rows: int
    dim: int
    dtype: torch.dtype = torch.float32
    kernel: str = "bag"  # or "sequence"
    path: str = ""

    @property
    def row_bytes(self) -> int:
        """Bytes of the weights of one row."""
        return self.dim * self.dtype.itemsize

    def state_row_bytes(self, optimizer: str) -> int:
        """Bytes of optimizer state a row: one float32 a row, one a value, or none."""
        return {"rowwise_adagrad": 4, "adagrad": 4 * self.dim, "sgd": 0}[optimizer]


def collections(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """(path, collection, name of its child that holds the tables) of each collection, sharded or not, once."""
    for path, child in module.named_modules():
        if type(child) in _CHILD:
            yield path, child, _CHILD[type(child)]


def find_tables(module: nn.Module) -> list[EmbeddingTable]:
    """The tables of every plain collection in `module`.

    Raises:
        ShardingError: there is none, a name occurs twice, or a collection is of a class that TorchRec will not shard.
    """
    tables: dict[str, EmbeddingTable] = {}
    for path, child in module.named_modules():
        if isinstance(child, EmbeddingBagCollection | EmbeddingCollection) and type(child) not in _CHILD:
            raise ShardingError(
                f"{path} is a {type(child).__name__}: TorchRec shards {type(child).__bases__[0].__name__} itself, "
                "not classes derived from it; hold the collection as a submodule instead"
            )
        if type(child) not in (EmbeddingBagCollection, EmbeddingCollection):
            continue
        for config in _configs(child):
            if config.name in tables:
                raise ShardingError(
                    f"two tables are named {config.name!r} (in {tables[config.name].path} and {path}): plans and "
                    "checkpoints know a table by its name, so give each its own"
                )
            tables[config.name] = EmbeddingTable(
                name=config.name,
                rows=config.num_embeddings,
                dim=config.embedding_dim,
                dtype=data_type_to_dtype(config.data_type),
                kernel="bag" if isinstance(child, EmbeddingBagCollection) else "sequence",
                path=path,
            )
    if not tables:
        raise ShardingError(
            "the module has no EmbeddingBagCollection and no EmbeddingCollection to shard: build them in "
            "configure_model (device='meta'), or train it with strategy=ddp"
        )
    return list(tables.values())


def _configs(collection: Any) -> list[Any]:
    bags = isinstance(collection, EmbeddingBagCollection)
    configs: list[Any] = collection.embedding_bag_configs() if bags else collection.embedding_configs()
    return configs


def initial_rows(module: nn.Module) -> dict[str, InitFn | Tensor]:
    """How each table of `module` starts: its rows if it already has some, else its `init_fn`."""
    start: dict[str, InitFn | Tensor] = {}
    for _, collection, child in collections(module):
        for config in _configs(collection):
            weight = getattr(collection, child)[config.name].weight
            start[config.name] = config.init_fn if weight.is_meta else weight.detach()
    return start


def draw_rows(module: nn.Module, start: dict[str, InitFn | Tensor], seed: int) -> None:
    """Fill this rank's rows of every sharded table, the same whatever the world size and the plan.

    TorchRec draws each shard from the process's generator: seeded alike, ranks then start with the same rows, and
    a table's rows depend on how it is cut. Here each block of `INIT_BLOCK` rows has a seed made of `seed`, the
    table's name and the block's number. An `init_fn` sees one block at a time, so it must treat all rows alike.
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
    """State-dict name of each table's weight -> `tables.<name>.weight`, its name in a checkpoint."""
    keys: dict[str, str] = {}
    for path, collection in module.named_modules(remove_duplicate=False):  # a shared collection has several names
        if child := _CHILD.get(type(collection)):
            prefix = f"{path}.{child}" if path else child
            keys |= {f"{prefix}.{name}.weight": f"tables.{name}.weight" for name in getattr(collection, child)}
    return keys


def sharded_tables(module: nn.Module) -> dict[str, ShardedTensor]:
    """Every sharded table by name; its local shards are views of the live weights."""
    return {
        key.removeprefix(f"{child}.").removesuffix(".weight"): value
        for _, collection, child in collections(module)
        for key, value in collection.state_dict().items()
    }


@contextmanager
def tables_hidden(module: nn.Module) -> Iterator[None]:
    """Take the sharded tables' weights out of `module.parameters()` for a while."""
    hidden = []
    for _, collection, child in collections(module):
        for holder in getattr(collection, child).values():
            hidden.append((holder, holder._parameters.pop("weight")))
    try:
        yield
    finally:
        for holder, weight in hidden:
            holder._parameters["weight"] = weight


def dense_names(module: nn.Module) -> dict[Tensor, str]:
    """Name of each parameter that is no table's."""
    with tables_hidden(module):
        return {parameter: name for name, parameter in module.named_parameters()}

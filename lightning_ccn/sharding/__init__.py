"""TorchRec's sharded embedding tables in Lightning: a strategy, plans and checkpoints. Independent of CCN."""

from lightning_ccn.sharding.checkpoint import load_unsharded
from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.manifest import newest_whole, read_manifest
from lightning_ccn.sharding.plain_values import read_trainer_state
from lightning_ccn.sharding.plan import Plan, make_plan
from lightning_ccn.sharding.strategy import TorchRecStrategy
from lightning_ccn.sharding.table_optimizers import TABLE_OPTIMIZERS, TableOptimizer
from lightning_ccn.sharding.tables import EmbeddingTable, find_tables
from lightning_ccn.sharding.warm_start import WarmStart

__all__ = [
    "TABLE_OPTIMIZERS",
    "EmbeddingTable",
    "Plan",
    "ShardingError",
    "TableOptimizer",
    "TorchRecStrategy",
    "WarmStart",
    "find_tables",
    "load_unsharded",
    "make_plan",
    "newest_whole",
    "read_manifest",
    "read_trainer_state",
]

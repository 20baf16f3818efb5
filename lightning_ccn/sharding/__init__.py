"""TorchRec's sharded embedding tables under Lightning: strategy, plans, checkpoints. Knows nothing of any model."""

from lightning_ccn.sharding.errors import ShardingError
from lightning_ccn.sharding.plan import Plan, make_plan
from lightning_ccn.sharding.strategy import TorchRecStrategy
from lightning_ccn.sharding.tables import Table, find_tables

__all__ = ["Plan", "ShardingError", "Table", "TorchRecStrategy", "find_tables", "make_plan"]

"""A synthetic world with known click probabilities: users enter promotions through a trigger and click items."""

from lightning_ccn.data.world.generate import generate, generate_world, split_visits
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.visits import Visits
from lightning_ccn.data.world.world import World

__all__ = ["Visits", "World", "WorldConfig", "generate", "generate_world", "split_visits"]

"""A synthetic promotion world whose click probabilities are known: every part is a function of the knobs."""

from lightning_ccn.data.world.generate import Summary, generate, world
from lightning_ccn.data.world.knobs import WorldConfig
from lightning_ccn.data.world.world import Visits, World

__all__ = ["Summary", "Visits", "World", "WorldConfig", "generate", "world"]

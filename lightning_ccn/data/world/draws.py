"""Random numbers as functions of what they are for: (seed, purpose, counters) -> value, in any order, any number.

A generator with a state would make a page depend on the pages before it, and a user on the table of all users. Here
the latent vector of user 61,000,000 costs as much as that of user 1, nothing is stored, and a world whose tables grow
keeps every old user and item. The hash is splitmix64's finaliser, chained over the counters (Steele, Lea, Flood:
Fast splittable pseudorandom number generators, OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

GOLDEN = 0x9E3779B97F4A7C15
MASK = 2**64 - 1


class Draws:
    """Counter-based draws under one seed.

    >>> draws = Draws(seed=1)
    >>> everyone = draws.uniform("age", np.arange(1000))
    >>> bool(draws.uniform("age", np.array([700]))[0] == everyone[700])
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def bits(self, purpose: str, *counters: ArrayLike) -> np.ndarray:
        """uint64, of the counters' broadcast shape (at least one dimension)."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        state = np.array([int.from_bytes(digest[:8], "little")], dtype=np.uint64)
        for counter in counters:
            state = _mix(state + (np.atleast_1d(counter).astype(np.uint64) + np.uint64(1)) * np.uint64(GOLDEN))
        return state

    def uniform(self, purpose: str, *counters: ArrayLike) -> np.ndarray:
        """float64 in (0, 1), of the counters' broadcast shape."""
        return ((self.bits(purpose, *counters) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, purpose: str, *counters: ArrayLike) -> np.ndarray:
        """float64 N(0, 1), of the counters' broadcast shape."""
        return _box_muller(self.bits(purpose, *counters))[0]

    def normals(self, purpose: str, *counters: ArrayLike, dims: int) -> np.ndarray:
        """float32 N(0, 1), of the counters' broadcast shape and a last axis of `dims`."""
        pairs = np.arange((dims + 1) // 2)
        bits = self.bits(purpose, *(np.asarray(counter)[..., None] for counter in counters), pairs)
        return np.concatenate(_box_muller(bits), axis=-1)[..., :dims].astype(np.float32)


class BetaQuantile:
    """Inverse distribution function of Beta(a, a), by interpolation; for draws from uniforms.

    With x = sin(t)^2 the density becomes sin(t)^(2a-1) cos(t)^(2a-1), which has no poles for a >= 1/2 and harmless
    ones below.
    """

    def __init__(self, a: float) -> None:
        self.a = a

    @cached_property
    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        edges = np.linspace(0.0, np.pi / 2, 20_001)
        middle = (edges[1:] + edges[:-1]) / 2
        mass = np.cumsum((np.sin(middle) * np.cos(middle)) ** (2 * self.a - 1))
        return np.concatenate([[0.0], mass / mass[-1]]), edges

    def __call__(self, uniform: np.ndarray) -> np.ndarray:
        """float64 in (0, 1), same shape."""
        return np.sin(np.interp(uniform, *self._grid)) ** 2


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _box_muller(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two normals from each 64 bits: 32 for the radius, 32 for the angle."""
    high = ((bits >> np.uint64(32)).astype(np.float64) + 0.5) * 2.0**-32
    low = (bits & np.uint64(0xFFFFFFFF)).astype(np.float64) * 2.0**-32
    radius, angle = np.sqrt(-2.0 * np.log(high)), 2.0 * np.pi * low
    return radius * np.cos(angle), radius * np.sin(angle)

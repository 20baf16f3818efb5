"""Random numbers as functions of what they are for: (seed, purpose, counters) -> value, in any order, any number.

A generator with a state would make a page depend on the pages before it, and a user on the table of all users. Here
the latent vector of user 61,000,000 costs as much as that of user 1, nothing is stored, and a world whose tables grow
keeps every old user and item. The hash is splitmix64's finaliser, chained over the counters (Steele, Lea, Flood:
Fast splittable pseudorandom number generators, OOPSLA 2014).
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """Counter-based draws under one seed.

    >>> draws = Draws(seed=1)
    >>> everyone = draws.uniform("age", np.arange(1000))
    >>> bool(draws.uniform("age", 700)[0] == everyone[700])
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def bits(self, purpose: str, *counters: ArrayLike) -> np.ndarray:
        """uint64, of the counters' broadcast shape (at least one dimension)."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        state = np.frombuffer(digest[:8], dtype="<u8")
        for counter in counters:
            state = _mix(state + (np.atleast_1d(counter).astype(np.uint64) + np.uint64(1)) * GOLDEN)
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
        bits = self.bits(purpose, *(np.atleast_1d(counter)[..., None] for counter in counters), pairs)
        return np.concatenate(_box_muller(bits), axis=-1)[..., :dims].astype(np.float32)


def halves(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two uniforms, float64 in (0, 1), from each 64 bits."""
    high, low = bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)
    return (high.astype(np.float64) + 0.5) * 2.0**-32, (low.astype(np.float64) + 0.5) * 2.0**-32


def beta_logit(uniform: np.ndarray, a: float) -> np.ndarray:
    """Logits of Beta(a, a) variables, by inversion of uniforms in (0, 1); float64, same shape.

    With x = sin(t)^2 the density in t is (sin t cos t)^(2a - 1), which for a >= 1/2 has no poles to integrate over, and
    logit(x) = 2 ln tan(t) keeps what x rounds away near 1.
    """
    return 2 * np.log(np.tan(np.interp(uniform, *_beta_distribution(a))))


@cache
def _beta_distribution(a: float) -> tuple[np.ndarray, np.ndarray]:
    edges = np.linspace(0.0, np.pi / 2, 20_001)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = np.cumsum((np.sin(middle) * np.cos(middle)) ** (2 * a - 1))
    return np.concatenate([[0.0], mass / mass[-1]]), edges


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _box_muller(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two normals from each 64 bits."""
    first, second = halves(bits)
    radius, angle = np.sqrt(-2.0 * np.log(first)), 2.0 * np.pi * second
    return radius * np.cos(angle), radius * np.sin(angle)

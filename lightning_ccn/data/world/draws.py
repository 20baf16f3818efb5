"""Counter-based random numbers: pure functions of (seed, purpose, counters), drawn in any order.

With a stateful generator, a page would depend on all pages before it, and a user on the table of all users. Here the
latent vector of user 61,000,000 costs as much as that of user 1, nothing is stored, and a world with more users and
items keeps every old one. The hash is `splitmix64`, chained over the counters.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from lightning_ccn.data.splitmix64 import splitmix64

GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Draws:
    """Random numbers of one seed.

    `purpose` separates draws that share counters: "age" and "city" of user 7 are independent.

    >>> draws = Draws(seed=1)
    >>> everyone = draws.uniform("age", np.arange(1000))
    >>> bool(draws.uniform("age", 700)[0] == everyone[700])
    True
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def bits(self, purpose: str, *counters: ArrayLike) -> np.ndarray:
        """Uint64 of the counters' broadcast shape (at least one dimension)."""
        digest = hashlib.sha256(f"{self.seed}/{purpose}".encode()).digest()
        state = np.frombuffer(digest[:8], dtype="<u8")
        for counter in counters:
            counted = state + (np.atleast_1d(counter).astype(np.uint64) + np.uint64(1)) * GOLDEN
            state = splitmix64(counted.view(np.int64)).view(np.uint64)
        return state

    def uniform(self, purpose: str, *counters: ArrayLike) -> np.ndarray:
        """Float64 in (0, 1), of the counters' broadcast shape."""
        return ((self.bits(purpose, *counters) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def normal(self, purpose: str, *counters: ArrayLike) -> np.ndarray:
        """Float64 N(0, 1), of the counters' broadcast shape."""
        return _box_muller(self.bits(purpose, *counters))[0]

    def normals(self, purpose: str, *counters: ArrayLike, dims: int) -> np.ndarray:
        """Float32 N(0, 1), of the counters' broadcast shape and a last axis of `dims`."""
        pairs = np.arange((dims + 1) // 2)
        bits = self.bits(purpose, *(np.atleast_1d(counter)[..., None] for counter in counters), pairs)
        return np.concatenate(_box_muller(bits), axis=-1)[..., :dims].astype(np.float32)


def halves(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two uniforms, float64 in (0, 1), from each uint64."""
    high, low = bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF)
    return (high.astype(np.float64) + 0.5) * 2.0**-32, (low.astype(np.float64) + 0.5) * 2.0**-32


def beta_logit(uniform: np.ndarray, a: float) -> np.ndarray:
    """Logits of Beta(a, a) variables, by inversion of uniforms in (0, 1); float64, same shape.

    With x = sin(t)^2 the density of t is (sin t cos t)^(2a - 1), which has no poles for a >= 1/2; and
    logit(x) = 2 ln tan(t) stays exact where x rounds to 1.
    """
    return 2 * np.log(np.tan(np.interp(uniform, *_beta_distribution(a))))


@cache
def _beta_distribution(a: float) -> tuple[np.ndarray, np.ndarray]:
    edges = np.linspace(0.0, np.pi / 2, 20_001)
    middle = (edges[1:] + edges[:-1]) / 2
    mass = np.cumsum((np.sin(middle) * np.cos(middle)) ** (2 * a - 1))
    return np.concatenate([[0.0], mass / mass[-1]]), edges


def _box_muller(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two float64 normals from each uint64 (Box-Muller)."""
    first, second = halves(bits)
    radius, angle = np.sqrt(-2.0 * np.log(first)), 2.0 * np.pi * second
    return radius * np.cos(angle), radius * np.sin(angle)

"""What the ranks tell one another beside their collective operations, also when one of them hangs or has ended."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import NamedTuple

from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]  # it has them, its stubs do not
from torch.distributed.distributed_c10d import _get_default_store

ANSWER_WITHIN = 20.0  # seconds for an answer of the store; a busy node has taken more than 5


class Sign(NamedTuple):
    """What a rank last told the others: how often it has, how many operations it has begun, and its node."""

    beat: int
    operations: int
    node: str


class RankStore:
    """The key-value store of the default process group, over a connection of its own.

    An OSError or a RuntimeError means that it does not answer. It is asked only when its port does: torch would log a
    stack trace for a connection that is lost.
    """

    def __init__(self) -> None:
        shared = _get_default_store()
        self._own = shared.clone()  # else a question waits for the main thread, which may wait for another rank
        self._own.set_timeout(timedelta(seconds=ANSWER_WITHIN))
        kept = shared
        while isinstance(kept, PrefixStore):
            kept = kept.underlying_store
        self._place = (kept.host, kept.port) if isinstance(kept, TCPStore) else None

    def tell(self, key: str, value: str) -> None:
        """Sets a value."""
        self._knock()
        self._own.set(f"sharding/{key}", value)

    def ask(self, *keys: str) -> list[str | None]:
        """The values of some keys; None where there is none."""
        self._knock()
        names = [f"sharding/{key}" for key in keys]
        return [self._own.get(name).decode() if self._own.check([name]) else None for name in names]

    def add(self, key: str, number: int) -> int:
        """Adds to a counter, which starts at 0, and returns it."""
        self._knock()
        return self._own.add(f"sharding/{key}", number)

    def give_sign(self, rank: int, sign: Sign) -> None:
        """Replaces the sign of a rank."""
        self.tell(f"sign/{rank}", f"{sign.beat} {sign.operations} {sign.node}")

    def signs(self, world_size: int) -> dict[int, Sign]:
        """The last sign of each rank that has given one; empty if the store does not answer."""
        try:
            told = self.ask(*(f"sign/{rank}" for rank in range(world_size)))
        except (OSError, RuntimeError):
            return {}
        signs = {}
        for rank, words in enumerate(told):
            if words is not None:
                beat, operations, node = words.split(" ", 2)
                signs[rank] = Sign(int(beat), int(operations), node)
        return signs

    def _knock(self) -> None:
        if self._place is not None:
            socket.create_connection(self._place, timeout=ANSWER_WITHIN).close()

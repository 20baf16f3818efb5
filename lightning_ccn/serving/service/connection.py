"""An HTTP connection that cannot be held open for nothing: what uvicorn does not bound by itself."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import resource
from typing import Any, ClassVar

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_CONNECTIONS = 4096
OWN_FILES = 32  # that the service may open besides, such as those of a new package
ACCEPTED_FIRST = 4  # times as many as at a time: what asyncio has accepted before it tells the first of them
QUIET_SECONDS = 60.0  # between two lines about refused connections

log = logging.getLogger("ccn.serve")


class BoundedConnection(H11Protocol):
    """A connection that is closed if no whole head comes in time, or if there are too many already.

    Attributes:
        most_connections: Open at a time; the newest is closed.
        head_seconds: From the first moment, or the first byte after an answer, to the end of a request's head.
        said_at: When the log last said that connections are refused, one value for all of them.
    """

    most_connections: int
    head_seconds: float
    said_at: ClassVar[list[float]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn does
        """Begins to wait for a head, or refuses the connection."""
        super().connection_made(transport)
        if len(self.connections) <= self.most_connections:
            self._look_for_head()
            return
        transport.abort()
        if (now := self.loop.time()) > self.said_at[0] + QUIET_SECONDS:
            self.said_at[0] = now
            log.warning("%d connections are open, and more are refused", self.most_connections)

    def data_received(self, data: bytes) -> None:
        """Takes bytes; a head that has come is waited for no longer."""
        super().data_received(data)
        self._look_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._forget_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP, in the form of all other errors."""
        body = json.dumps({"error": "the request is not HTTP/1.1, or its lengths are wrong"}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        events = [h11.Response(status_code=400, headers=[*headers, (b"connection", b"close")]), h11.Data(data=body)]
        for event in (*events, h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _look_for_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._forget_timer()
        elif self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_seconds, self.transport.abort)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


def bounded(head_seconds: float) -> tuple[type[BoundedConnection], int]:
    """The connections of a service, and how many asyncio may accept at a time.

    There are as many as there are file descriptors for. Beyond them, asyncio would fail to accept again and again.

    Args:
        head_seconds: See `BoundedConnection`.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST_CONNECTIONS
    if soft < wanted and hard != soft:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    at_a_time = min(max(soft // 16, 4), 128)
    left = soft - len(os.listdir("/proc/self/fd")) - OWN_FILES - ACCEPTED_FIRST * at_a_time

    class Connection(BoundedConnection):
        most_connections = min(max(left, 1), MOST_CONNECTIONS)
        said_at: ClassVar = [-math.inf]

    Connection.head_seconds = head_seconds
    return Connection, at_a_time

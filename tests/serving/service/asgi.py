"""Calls an ASGI application in this process, as a server would."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.types import ASGIApp, Message

JSON = {"content-type": "application/json"}
T = TypeVar("T")


@dataclass(frozen=True)
class Answered:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def plain(self) -> Any:
        """The value of the body, which must be strict JSON."""
        return json.loads(self.body, parse_constant=_refuse)

    @property
    def error(self) -> str:
        """What the body says is wrong."""
        (words,) = self.plain.values()
        assert list(self.plain) == ["error"]
        assert isinstance(words, str)
        return words


def _refuse(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


class Body:
    """A body that comes in parts.

    Args:
        parts: The parts.
        until: The last part comes after this.

    Attributes:
        received: How many parts were asked for.
    """

    def __init__(self, parts: Iterable[bytes], until: asyncio.Event | None = None) -> None:
        self._parts, self._until, self.received = list(parts), until, 0

    async def __call__(self) -> Message:
        last = self.received == len(self._parts) - 1
        if last and self._until is not None:
            await self._until.wait()
        part = self._parts[self.received]
        self.received += 1
        return {"type": "http.request", "body": part, "more_body": not last}


async def call(
    app: ASGIApp, method: str, path: str, body: bytes | Body = b"", headers: Mapping[str, str] = JSON
) -> Answered:
    """What the application answers."""
    fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "headers": fields}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await app({**scope, "query_string": b""}, body if isinstance(body, Body) else Body([body]), send)
    start, *parts = sent
    named = {name.decode(): value.decode() for name, value in start["headers"]}
    return Answered(start["status"], named, b"".join(part.get("body", b"") for part in parts))


async def post(app: ASGIApp, request: object, **headers: str) -> Answered:
    """What POST /score answers to a value that is written as JSON."""
    return await call(app, "POST", "/score", json.dumps(request).encode(), {**JSON, **headers})


class Loop:
    """An event loop in a thread of its own: Playwright's is in this one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine."""
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result()

    def stop(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

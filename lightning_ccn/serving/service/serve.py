"""Serves until a signal ends it: the socket, the signals, and the server between them."""

from __future__ import annotations

import ipaddress
import logging
import math
import queue
import signal
import socket
import threading
import time
from pathlib import Path
from types import FrameType

import uvicorn

from lightning_ccn.errors import OptionError
from lightning_ccn.serving.service.app import Service, words
from lightning_ccn.serving.service.connection import bounded
from lightning_ccn.serving.service.limits import ServiceLimits

ENDED = 0  # in the queue of signals: the server has ended
BACKLOG = 1024  # connections that wait to be accepted
SHORTEST_TOKEN = 16  # characters

log = logging.getLogger("ccn.serve")


def serve(
    package: Path,
    host: str,
    port: int,
    token_file: Path | None,
    limits: ServiceLimits,
    workers: int,
    threads: int,
    drain_seconds: float,
) -> int:
    """Serves a package over HTTP, and returns after SIGTERM or SIGINT.

    SIGHUP reads the package anew. SIGTERM makes /readyz say no, waits for `drain_seconds`, in which whoever sends
    requests can notice, and then ends when the last answer is given. SIGINT does not wait, nor does a second signal.

    Args:
        package: The package, or a symbolic link to it.
        host: Name or address to listen at.
        port: To listen at; 0: a free one.
        token_file: Has what callers must show; None: nothing.
        limits: What one caller may ask for.
        workers: Requests that are scored at a time.
        threads: Threads of one request.
        drain_seconds: See above.

    Returns:
        The exit code.

    Raises:
        OptionError: The place cannot be listened at, or the token is no token.
        PackageError: The package cannot be served.
    """
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()
    # from now on, since it would end the process
    before = {signal.SIGHUP: signal.signal(signal.SIGHUP, lambda number, _: signals.put(number))}
    try:
        token = None if token_file is None else read_token(token_file)
        listening = bind(host, port)
        service = Service(package, limits, workers, threads, token)

        def stop(number: int, frame: FrameType | None) -> None:
            service.stopping = True
            signals.put(number)

        before |= {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
        server = _server(service, limits)
        listening.listen(BACKLOG)  # before the address is announced; who connects now is answered soon
        # in a thread, so that the signals are not uvicorn's, and a reload does not hold up answers
        thread = threading.Thread(target=_run, args=(server, listening, signals), name="server")
        thread.start()
        _announce(listening, service, token is not None)
        try:
            return _until_the_end(signals, service, server, drain_seconds)
        finally:
            server.should_exit = True  # after an error of this thread too: nobody would hear the signals
            thread.join()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts, and lets more connections wait than asyncio may accept at a time."""
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(BACKLOG)


def _server(service: Service, limits: ServiceLimits) -> uvicorn.Server:
    connection, accepted = bounded(limits.most_seconds)
    return _Server(
        uvicorn.Config(
            service,
            http=connection,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level="error",
            access_log=False,
            backlog=accepted,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=math.ceil(limits.most_seconds) + 1,
        )
    )


def _run(server: uvicorn.Server, listening: socket.socket, signals: queue.SimpleQueue[int]) -> None:
    try:
        server.run(sockets=[listening])
    finally:
        signals.put(ENDED)


def _until_the_end(
    signals: queue.SimpleQueue[int], service: Service, server: uvicorn.Server, drain_seconds: float
) -> int:
    end = math.inf  # when draining ends
    while True:
        try:
            number = signals.get(timeout=None if end == math.inf else max(end - time.monotonic(), 0))
        except queue.Empty:
            server.should_exit, end = True, math.inf
            continue
        if number == ENDED:
            log.info("ended")
            return 0 if service.stopping else 1  # the server's own error is in the log
        if number == signal.SIGHUP:
            if not service.stopping:
                service.reload()
        elif server.should_exit:
            server.force_exit = True
        elif number == signal.SIGTERM and end == math.inf:
            log.info("stopping: not ready any more, and ending in %g seconds", drain_seconds)
            end = time.monotonic() + drain_seconds
        else:
            log.info("stopping after the requests that have begun")
            server.should_exit, end = True, math.inf


def bind(host: str, port: int) -> socket.socket:
    """A socket at that place, which does not listen yet.

    Raises:
        OptionError: There is no such place, or it is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # of its connections too: dead ones end some day
        bound.bind(address)
    except OSError as error:
        raise OptionError(f"--host {host} --port {port}: cannot be listened at: {error.strerror}") from None
    return bound


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        OptionError: The file cannot be read, or has no token that is hard to guess.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"--token_file {path}: cannot be read as text in ASCII: {error}") from None
    if len(token) < SHORTEST_TOKEN or not token.isprintable() or " " in token:
        raise OptionError(
            f"--token_file {path}: must have one word of {SHORTEST_TOKEN} or more characters, such as `openssl rand "
            "-hex 32` makes"
        )
    return token


def _announce(listening: socket.socket, service: Service, has_token: bool) -> None:
    address, port = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    log.info("http://%s:%d/ serves %s", shown, port, words(service.served))
    if not has_token and not ipaddress.ip_address(address).is_loopback:
        log.warning(
            "everybody who reaches %s can score: give --token_file, or listen at 127.0.0.1 behind a proxy that asks "
            "who is calling",
            shown,
        )

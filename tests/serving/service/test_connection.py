"""Connections that bring no request do not keep others from the service."""

from __future__ import annotations

import http.client
import json
import resource
import socket
from collections.abc import Callable
from pathlib import Path

from tests.serving.service.conftest import EXAMPLES
from tests.serving.service.process import Client, ServerProcess

Start = Callable[..., ServerProcess]


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port))


def test_a_connection_whose_head_does_not_come_is_closed(package: Path, start: Start) -> None:
    server = start(package, "--most_seconds", "0.5")
    with connected(server.port) as silent, connected(server.port) as slow, connected(server.port) as second:
        slow.send(b"POST /score HTT")
        second.send(b"GET /healthz HTTP/1.1\r\nHost: here\r\n\r\n")
        answer = http.client.HTTPResponse(second)
        answer.begin()
        assert json.loads(answer.read()) == {"alive": True}
        second.send(b"GET /hea")  # the head of another request, on the same connection
        for connection in (silent, slow, second):
            assert closed(connection)
    assert Client(server.port).ask("/score", EXAMPLES[0])[0] in (200, 504)  # half a second is short on a slow machine


def closed(connection: socket.socket) -> bool:
    """Whether the other side ends the connection, without another byte."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_connections_are_refused_before_file_descriptors_run_out(package: Path, start: Start) -> None:
    server = start(package, "--most_seconds", "2", descriptors=160)
    idle = [connected(server.port) for _ in range(300)]
    server.wait_for("connections are open, and more are refused")
    for connection in idle:
        assert closed(connection)  # at once, or when its head was waited for long enough
        connection.close()
    assert Client(server.port).ask("/healthz")[0] == 200
    assert server.said().count("are refused") == 1
    assert "Errno" not in server.said()


def test_what_is_not_http_is_refused_as_all_else_is(package: Path, start: Start) -> None:
    server = start(package)
    heads = {
        b"GET / HTTP/1.1\r\nHost: here\r\nContent-Length: -1\r\n\r\n",
        b"this is no HTTP\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    }
    for head in heads:
        with connected(server.port) as connection:
            connection.send(head)
            answer = http.client.HTTPResponse(connection)
            answer.begin()
            assert (answer.status, answer.getheader("content-type")) == (400, "application/json")
            assert "HTTP" in json.loads(answer.read())["error"]
    assert Client(server.port).ask("/healthz")[0] == 200


def test_as_many_descriptors_are_taken_as_there_may_be(package: Path, start: Start) -> None:
    server = start(package, descriptors=160)
    assert resource.prlimit(server.pid, resource.RLIMIT_NOFILE) == (160, 160)
    other = start(package, descriptors=(100, 300))
    assert resource.prlimit(other.pid, resource.RLIMIT_NOFILE) == (300, 300)

"""Thousands of malformed requests give a clear 4xx each, and never an error of the service."""

from __future__ import annotations

import copy
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lightning_ccn.serving.service.app import Service
from tests.serving.service.asgi import JSON, Answered, Loop, call
from tests.serving.service.conftest import EXAMPLES
from tests.serving.service.process import Client, ServerProcess

VALID = EXAMPLES[0]
TEXT = json.dumps(VALID)
NUMBER = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
TEXTS = st.text(max_size=8)
NESTED = st.lists(TEXTS | NUMBER, max_size=3) | st.dictionaries(TEXTS, NUMBER, max_size=2)
PLAIN = st.none() | st.booleans() | NUMBER | TEXTS | NESTED
NO_ID = st.one_of(
    TEXTS,
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    NESTED,
    st.integers(2**63),
    st.integers(None, -(2**63) - 1),
)
NO_NUMBER = TEXTS | st.booleans() | NESTED | st.sampled_from([1e300, -1e200, 10**400])
NO_LIST = st.none() | st.booleans() | NUMBER | TEXTS | st.dictionaries(TEXTS, NUMBER, max_size=2)
NO_OBJECT = st.none() | st.booleans() | NUMBER | TEXTS | st.lists(NUMBER, max_size=3)
NAMES = st.text(max_size=12).filter(lambda name: name not in {*VALID, *VALID["user"], "price", "age", "requests"})
SETTINGS = settings(
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@st.composite
def wrong_requests(draw: st.DrawFn) -> Any:
    """A request with one thing that is wrong."""
    request = copy.deepcopy(VALID)
    kind = draw(st.integers(0, 8))
    if kind == 0:
        request[draw(st.sampled_from(["items", "short", "long"]))] = draw(NO_LIST)
    elif kind == 1:
        ids = request[draw(st.sampled_from(["items", "short", "long"]))]
        ids[draw(st.integers(0, len(ids) - 1))] = draw(NO_ID)
    elif kind == 2:
        request["trigger"] = draw(NO_ID)
    elif kind == 3:
        request["user"][draw(st.sampled_from(["user", "city"]))] = draw(NO_ID)
    elif kind == 4:
        request["user"]["interests"] = [1002, draw(NO_ID)]
    elif kind == 5:
        request["numbers"]["price"][draw(st.integers(0, 3))] = draw(NO_NUMBER)
    elif kind == 6:
        request["numbers"]["price"] = draw(st.lists(st.floats(-9, 9), max_size=9).filter(lambda all: len(all) != 4))
    elif kind == 7:
        request[draw(st.sampled_from(["user", "numbers", "page_numbers"]))] = draw(NO_OBJECT)
    else:
        where = draw(st.sampled_from(["user", "numbers", "page_numbers", None]))
        (request if where is None else request[where])[draw(NAMES)] = draw(PLAIN)
    return request


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


WRONG = wrong_requests()
BODIES = st.one_of(
    WRONG.map(as_json),
    st.builds(lambda wrong, at: as_json({"requests": [VALID] * at + [wrong]}), WRONG, st.integers(0, 3)),
    PLAIN.map(as_json),  # anything but a request
    st.integers(0, len(TEXT) - 1).map(lambda end: TEXT[:end].encode()),  # cut
    st.builds(lambda at, byte: TEXT[:at].encode() + byte + TEXT[at:].encode(), st.integers(0, 20), st.sampled_from(
        [b"\xff", b"\xc3(", b"\x00", b"[", b"NaN", b"//", b"'"])),
    st.sampled_from(["NaN", "Infinity", "-Infinity"]).map(lambda word: TEXT.replace("3.75", word).encode()),
    st.integers(51, 400).map(lambda many: as_json({"items": [1001] * many})),
    st.integers(5, 90).map(lambda many: as_json({"requests": [{"items": []}] * many})),
    st.integers(20_001, 20_100).map(lambda size: TEXT.encode().ljust(size)),
    st.integers(900, 9_000).map(lambda deep: b'{"items": ' + b"[" * deep + b"]" * deep + b"}"),
)  # fmt: skip
CALLS = st.one_of(
    *[st.tuples(st.just("POST"), st.just("/score"), st.just(JSON), BODIES)] * 9,
    st.tuples(st.sampled_from(["GET", "PUT", "DELETE", "OPTIONS"]), st.just("/score"), st.just(JSON), BODIES),
    st.tuples(st.just("POST"), st.sampled_from(["/", "/metrics", "/readyz"]), st.just(JSON), BODIES),
    st.tuples(st.just("POST"), st.text(max_size=9).map(lambda path: f"/x{path}"), st.just(JSON), BODIES),
    st.tuples(
        st.just("POST"),
        st.just("/score"),
        st.dictionaries(
            st.sampled_from(["content-type", "content-encoding", "content-length"]),
            st.text(st.characters(max_codepoint=255), max_size=20),
        ),
        st.just(TEXT.encode()),
    ),
)
AT_ONCE = 10


def run_all(loop: Loop, service: Service, calls: list[tuple[Any, ...]]) -> list[Answered]:
    async def every() -> list[Answered]:
        return [await call(service, method, path, body, headers) for method, path, headers, body in calls]

    return loop.run(every())


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_malformed_requests_are_refused_with_words(service: Service, loop: Loop, count: int) -> None:
    seen: dict[int, int] = {}

    @settings(SETTINGS, max_examples=count // AT_ONCE)
    @given(st.lists(CALLS, min_size=AT_ONCE, max_size=AT_ONCE))
    def refuse(calls: list[tuple[Any, ...]]) -> None:
        for asked, answered in zip(calls, run_all(loop, service, calls), strict=True):
            assert 400 <= answered.status < 500, asked
            assert answered.error, asked
            seen[answered.status] = seen.get(answered.status, 0) + 1

    refuse()
    assert set(seen) == {400, 404, 405, 413, 415, 422}
    assert sum(seen.values()) == count
    assert run_all(loop, service, [("POST", "/score", JSON, TEXT.encode())])[0].status == 200


HEAD = f"POST /score HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(TEXT)}\r\n\r\n"
WHOLE = (HEAD + TEXT).encode()
DAMAGES = st.one_of(
    st.integers(0, len(WHOLE) - 1).map(lambda end: WHOLE[:end]),
    st.builds(
        lambda at, more: WHOLE[:at] + more + WHOLE[at:], st.integers(0, len(HEAD)), st.binary(min_size=1, max_size=9)
    ),
    BODIES.map(lambda body: WHOLE[: len(HEAD)].replace(str(len(TEXT)).encode(), str(len(body)).encode()) + body),
    st.binary(max_size=60),
)


def test_damaged_http_ends_in_an_answer_or_a_closed_connection_and_the_server_lives(
    package: Path, start: Callable[..., ServerProcess]
) -> None:
    server = start(package, "--most_waiting", "1000")  # it also answers those who have gone, whose places are taken
    statuses = set()

    @settings(SETTINGS, max_examples=300)
    @given(DAMAGES)
    def send(damaged: bytes) -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(damaged)
            connection.shutdown(socket.SHUT_WR)
            answered = b"".join(iter(lambda: connection.recv(65_536), b""))
        if answered:
            statuses.add(int(answered.split()[1]))

    send()
    assert {status for status in statuses if status != 200} <= set(range(400, 500))
    assert 400 in statuses  # of what is no HTTP; who has gone before the answer gets none
    client = Client(server.port)
    assert client.ask("/score", VALID)[0] == 200
    client.close()
    assert "Traceback" not in server.said()

"""The HTTP benchmark asks with ids that the package knows, and counts what fails."""

from __future__ import annotations

import json
import queue
import threading
from pathlib import Path

from benchmarks.serving_http import Asked, ask, bodies
from lightning_ccn.serving import Request, Scorer
from tests.serving.service.process import ServerProcess


def test_requests_have_the_asked_size_and_known_ids(package: Path) -> None:
    first, second = map(json.loads, bodies(package, Asked(items=7, short=3, long=9), 2))
    assert first != second
    assert [len(first[name]) for name in ("items", "short", "long")] == [7, 3, 9]
    scores = Scorer(package).answer(Request.from_plain(first))
    assert (scores.unknown, scores.defaulted, len(scores.probability)) == ({}, (), 7)


def test_a_client_ends_after_its_number_and_counts_failures(package: Path, tmp_path: Path) -> None:
    server = ServerProcess(package, tmp_path / "log")
    told: queue.Queue[tuple[list[float], int, float]] = queue.Queue()
    ready = threading.Barrier(1)
    good, bad = json.dumps({"items": [1001]}).encode(), b"{}"
    try:
        ask(server.port, [good, bad, bad], 9, 3600, ready, told)
        ask(server.port, [good], 10**9, 0, ready, told)  # its time is over at once
    finally:
        server.stop()
    ask(server.port, [good], 5, 3600, ready, told)  # nobody listens any more
    by_number, by_time, alone = (told.get() for _ in range(3))
    assert (len(by_number[0]), by_number[1]) == (3, 6)
    assert sum(by_number[0]) <= by_number[2]
    assert (len(by_time[0]), by_time[1]) == (0, 0)
    assert (len(alone[0]), alone[1]) == (0, 5)

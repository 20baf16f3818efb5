"""Measures the HTTP service of a package: requests a second and times, with one client and with several.

python -m benchmarks.serving_http PACKAGE

The service runs in a process of its own, and so does each client, which keeps its connection and asks again when it is
answered. Requests are of random ids that the package knows. A measurement ends after a number of requests, or of
seconds, whichever is first. What is not answered with 200 is counted, and never timed.
"""

from __future__ import annotations

import http.client
import json
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.serving.package import Package

WARM_UP = 20  # requests of each client that are not measured
NOW, YEAR = 1_800_000_000, 365 * 24 * 3600  # seconds; behaviours are of the last year


@dataclass(frozen=True)
class Asked:
    """The size of a request.

    Attributes:
        items: Candidates.
        short, long: Behaviours.
    """

    items: int = 500
    short: int = 50
    long: int = 1000


def bodies(package: Path, asked: Asked, count: int) -> list[bytes]:
    """Requests of random known ids, as JSON."""
    manifest, rng = Package(package).manifest, np.random.default_rng(0)
    ids: dict[str, list[Any]] = {}
    for name, table in manifest.tables.items():
        path = package / "vocabulary" / f"{name}.parquet"
        ids[name] = Vocabulary.load(path).ids.to_pylist() if path.is_file() else list(range(1, table.rows))

    def some(table: str, many: int) -> list[Any]:
        return [ids[table][at] for at in rng.integers(0, len(ids[table]), many)]

    def times(many: int) -> list[int]:
        return sorted(rng.integers(NOW - YEAR, NOW, many).tolist())

    made = []
    for _ in range(count):
        request = {
            "items": some("item", asked.items),
            "user": {f.name: some(f.table, 3) if f.many else some(f.table, 1)[0] for f in manifest.user},
            "trigger": some("item", 1)[0],
            "short": some("item", asked.short),
            "long": some("item", asked.long),
            "numbers": {n.name: rng.normal(n.mean, n.deviation, asked.items).tolist() for n in manifest.numbers},
            "page_numbers": {n.name: float(rng.normal(n.mean, n.deviation)) for n in manifest.page_numbers},
        }
        if manifest.reads_gaps:
            request |= {"time": NOW, "short_times": times(asked.short), "long_times": times(asked.long)}
        made.append(json.dumps(request).encode())
    return made


@contextmanager
def served(package: Path, options: list[str]) -> Iterator[int]:
    """A service, and its port."""
    command = [sys.executable, "-m", "lightning_ccn.cli", "serve", str(package), "--port", "0", *options]
    server = subprocess.Popen([*command, "--drain_seconds", "0"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        said = server.stderr.readline()
        found = re.search(r":(\d+)/ serves", said)
        if found is None:
            raise SystemExit(said + server.stderr.read())
        yield int(found.group(1))
    finally:
        server.terminate()
        server.wait()


def ask(port: int, requests: list[bytes], most: int, seconds: float, ready: Any, told: Any) -> None:
    """A client: asks until its number or time is over, and puts the seconds of each answer, and the failures."""
    taken, failures = [], 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def once(body: bytes) -> bool:
        try:
            connection.request("POST", "/score", body, {"content-type": "application/json"})
            answer = connection.getresponse()
            return len(answer.read()) > 0 and answer.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()  # the next request opens it again
            return False

    for at in range(WARM_UP):
        once(requests[at % len(requests)])
    ready.wait()
    begin = time.perf_counter()
    for at in range(most):
        start = time.perf_counter()
        if start - begin > seconds:
            break
        if once(requests[at % len(requests)]):
            taken.append(time.perf_counter() - start)
        else:
            failures += 1
    told.put((taken, failures, time.perf_counter() - begin))


def measure(port: int, requests: list[bytes], clients: int, most: int, seconds: float) -> dict[str, float]:
    """Clients at a time, each with its share of the requests."""
    context = multiprocessing.get_context("spawn")
    ready, told = context.Barrier(clients), context.Queue()
    processes = [
        context.Process(target=ask, args=(port, requests, most // clients, seconds, ready, told))
        for _ in range(clients)
    ]
    for process in processes:
        process.start()
    answers = [told.get() for _ in processes]
    for process in processes:
        process.join()
    taken = np.concatenate([np.array(each) for each, *_ in answers])
    p50, p99 = np.quantile(taken, (0.5, 0.99)) * 1000 if len(taken) else (np.nan, np.nan)
    return {
        "clients": clients,
        "answered": len(taken),
        "failed": sum(failures for _, failures, _ in answers),
        "a_second": round(len(taken) / max(lasted for *_, lasted in answers), 1),
        "p50_ms": round(float(p50), 2),
        "p99_ms": round(float(p99), 2),
    }


def main(
    package: Path,
    clients: list[int] | None = None,
    requests: int = 2000,
    seconds: float = 60.0,
    asked: Asked = Asked(),  # frozen, so it can be shared
    workers: int | None = None,
    output: Path | None = None,
) -> None:
    """Measure the HTTP service of a package.

    Args:
        package: What `ccn export` wrote.
        clients: Clients at a time, one measurement each; default: 1 and 4.
        requests: Most requests of a measurement.
        seconds: Most seconds of a measurement.
        asked: The size of a request.
        workers: Requests that the service scores at a time; default: its own default.
        output: File to write, as JSON; default: none.
    """
    made = bodies(package, asked, min(requests, 50))
    options = ["--most_items", str(max(asked.items, 1))] + ([] if workers is None else ["--workers", str(workers)])
    with served(package, options) as port:
        found = [measure(port, made, count, requests, seconds) for count in clients or (1, 4)]
    result = {
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "asked": asdict(asked),
        "body_bytes": len(made[0]),
        "measured": found,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if output is not None:
        output.write_text(text + "\n")


if __name__ == "__main__":
    auto_cli(main, as_positional=True)

"""`ccn serve` as a process: signals under load, and options. None of it can import torch."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_ccn.cli import main
from lightning_ccn.serving import Request, Scorer
from lightning_ccn.serving.service.app import Service
from lightning_ccn.serving.service.limits import ServiceLimits
from lightning_ccn.serving.service.serve import serve
from tests.serving.service.conftest import EXAMPLES
from tests.serving.service.process import Client, ServerProcess

PAGE = EXAMPLES[0]
Start = Callable[..., ServerProcess]


class Load:
    """Clients that ask until they are told to, or the server closes their connection.

    Attributes:
        answers: All of them: status, body.
        failures: Errors of connections.
    """

    def __init__(self, port: int, clients: int = 3) -> None:
        self._port, self._enough = port, threading.Event()
        self.answers: list[tuple[int, Any]] = []
        self.failures: list[Exception] = []
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        client, closes = Client(self._port), False
        try:
            while not closes and not self._enough.is_set():
                status, body, closes = client.ask("/score", PAGE)
                self.answers.append((status, body))
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(error)
        finally:
            client.close()

    def wait(self, answers: int) -> None:
        """Waits for so many more answers."""
        goal = len(self.answers) + answers
        while len(self.answers) < goal and not self.failures:
            threading.Event().wait(0.001)

    def end(self, enough: bool) -> None:
        """Ends; `enough`: also if the server closes no connection."""
        if enough:
            self._enough.set()
        for thread in self._threads:
            thread.join()
        assert self.failures == []
        assert {status for status, _ in self.answers} == {200}


def replace_link(link: Path, target: Path) -> None:
    """Points a symbolic link elsewhere, so that there is always one."""
    new = link.with_name("new")
    new.symlink_to(target)
    os.replace(new, link)


def test_reloads_under_load_lose_nothing(
    package: Path, newer: Path, broken: Path, tmp_path: Path, start: Start
) -> None:
    link = tmp_path / "today"
    link.symlink_to(package)
    server = start(link)
    load = Load(server.port)
    load.wait(20)
    steps = [(newer, "reloaded: CCN, exported 21"), (broken, "reload failed"), (package, "reloaded: CCN, exported 20")]
    for target, said in steps:
        replace_link(link, target)
        server.send(signal.SIGHUP)
        server.wait_for(said)
        load.wait(20)
    load.end(enough=True)
    answers: dict[str, set[str]] = {}
    for _, body in load.answers:
        answers.setdefault(body.pop("package"), set()).add(json.dumps(body))
    assert [len(each) for each in answers.values()] == [1, 1]  # of both packages, and of no other
    given = [json.loads(answer)["probability"] for each in answers.values() for answer in each]
    for folder, probability in zip((package, newer), given, strict=True):
        expected = Scorer(folder).answer(Request.from_plain(PAGE)).probability.tolist()
        assert probability == pytest.approx(expected, rel=1e-6)
    assert given[0] != given[1]


@pytest.mark.parametrize("content", [b"\xff\x00", b'{"format": 1}', None])
def test_a_damaged_package_never_takes_the_place_of_a_good_one(
    package: Path, tmp_path: Path, start: Start, content: bytes | None
) -> None:
    folder = shutil.copytree(package, tmp_path / "package")
    server = start(folder, "--drain_seconds", "0")
    plain = json.loads((folder / "package.json").read_text())
    without_users = json.dumps({**plain, "user": []}).encode()  # which the graph reads
    (folder / "package.json").write_bytes(without_users if content is None else content)
    server.send(signal.SIGHUP)
    server.wait_for("reload failed, and the old package stays in service")
    client = Client(server.port)
    assert client.ask("/score", PAGE)[0] == 200
    assert "ccn_reload_failed 1.0" in client.ask("/metrics")[1]
    assert "Traceback" not in server.said()
    server.send(signal.SIGTERM)
    assert server.end() == 0


def test_an_error_of_the_program_leaves_no_server_that_nobody_can_stop(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(service: Service) -> bool:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(Service, "reload", fail)
    hup = threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGHUP])
    hup.start()
    with pytest.raises(RuntimeError, match="unforeseen"):
        serve(package, "127.0.0.1", 0, None, ServiceLimits(), 1, 1, 0.0)
    hup.join()
    assert "server" not in [thread.name for thread in threading.enumerate()]


def half_sent(port: int) -> tuple[http.client.HTTPConnection, bytes]:
    """A request that has begun, and the rest of it."""
    body = json.dumps(PAGE).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.putrequest("POST", "/score")
    connection.putheader("content-type", "application/json")
    connection.putheader("content-length", str(len(body)))
    connection.endheaders(body[:10])
    return connection, body[10:]


def test_sigterm_under_load_loses_nothing(package: Path, start: Start) -> None:
    server = start(package, "--drain_seconds", "3600")
    load, probe = Load(server.port), Client(server.port)
    slow, rest = half_sent(server.port)
    load.wait(20)
    assert probe.ask("/readyz")[0] == 200
    server.send(signal.SIGTERM)
    server.wait_for("ending in 3600 seconds")
    assert probe.ask("/readyz") == (503, {"error": "the service is stopping"}, True)
    load.end(enough=False)  # each connection was closed by an answer
    assert probe.ask("/score", PAGE)[0] == 200  # on a new connection: who has not noticed yet is answered
    probe.close()
    server.send(signal.SIGTERM)  # does not wait for the hour
    server.wait_for("after the requests that have begun")
    while server.listens():
        pass
    slow.send(rest)
    assert slow.getresponse().status == 200
    slow.close()
    assert server.end() == 0


def test_a_request_that_never_ends_does_not_hold_up_the_end(package: Path, start: Start) -> None:
    server = start(package, "--most_seconds", "0.5", "--drain_seconds", "0.1")
    slow, _ = half_sent(server.port)
    Client(server.port).ask("/healthz")  # after it, the server knows of the first connection
    server.send(signal.SIGTERM)
    assert slow.getresponse().status == 408
    assert server.end() == 0


def test_a_token_comes_from_a_file_and_other_addresses_without_one_are_warned_of(
    package: Path, tmp_path: Path, start: Start
) -> None:
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    open_, closed = start(package, "--host", "0.0.0.0"), start(package, "--host", "0.0.0.0", "--token_file", str(token))
    assert "everybody who reaches 0.0.0.0 can score: give --token_file" in open_.said()
    assert "everybody" not in closed.said()
    assert Client(closed.port).ask("/score", PAGE)[0] == 401
    connection = http.client.HTTPConnection("127.0.0.1", closed.port)
    headers = {"content-type": "application/json", "authorization": "Bearer 0123456789abcdef"}
    connection.request("POST", "/score", json.dumps(PAGE), headers)
    assert connection.getresponse().status == 200
    connection.close()
    closed.send(signal.SIGINT)
    assert closed.end() == 0


def test_what_cannot_be_served_is_one_line(
    package: Path, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, text in (("short", "0123456789"), ("two", "0123456789 0123456789"), ("other", "0123456789abcdefé")):
        (tmp_path / name).write_text(text, encoding="latin-1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        calls = {
            (tmp_path,): "is not a package, since it has no package.json",
            (broken,): "item.values.npy: has",
            (package, "--port", port): f"--port {port}: cannot be listened at: Address already in use",
            (package, "--host", "no.such.host.invalid"): "--host no.such.host.invalid --port 8000: cannot be",
            (package, "--port", "70000"): "argument --port: 70000 must be from 0 to 65,535",
            (package, "--most_seconds", "nan"): "argument --most_seconds: nan must be from",
            (package, "--workers", "two"): "argument --workers: 'two' is not a number of type int",
            (package, "--token_file", tmp_path / "none"): "cannot be read as text in ASCII",
            (package, "--token_file", tmp_path / "other"): "cannot be read as text in ASCII",
            (package, "--token_file", tmp_path / "short"): "must have one word of 16 or more characters",
            (package, "--token_file", tmp_path / "two"): "must have one word of 16 or more characters",
        }
        handlers = [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)]
        for words, said in calls.items():
            try:
                code = main(["serve", *map(str, words)])
            except SystemExit as ended:
                code = int(ended.code or 0)
            printed = capsys.readouterr().err
            assert (code, printed.count("\n")) == (2, 1), printed
            assert printed.startswith("ccn: error: ")
            assert said in printed
        assert [signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)] == handlers

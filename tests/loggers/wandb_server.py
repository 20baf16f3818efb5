"""As much of a W&B server as the client needs to open a run and to send its lines, on a port of this machine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class Server(ThreadingHTTPServer):
    """Knows one run.

    Attributes:
        status: of every answer.
        dies_on: part of a path; the first request for it is the last of all.
        history: the run's lines, as the client sent them.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.status = 200
        self.dies_on: str | None = None
        self.history: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """Its address, WANDB_BASE_URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, path: str, content: bytes) -> dict[str, Any]:
        """What it says to a request."""
        if path != "/graphql":
            if "file_stream" in path:
                self._take(json.loads(content))
            return {}
        asked = json.loads(content)
        query = asked["query"]
        owner = {"id": "project", "name": "project", "entity": {"id": "entity", "name": "entity"}}
        run = {
            "id": "run",
            "name": asked.get("variables", {}).get("name"),
            "displayName": "run",
            "config": "{}",
            "wandbConfig": '{"t": 1}',
            "summaryMetrics": "{}",
            "historyLineCount": len(self.history),
            "historyTail": json.dumps([json.dumps(line) for line in self.history[-1:]]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "project": owner,
        }
        if "upsertBucket" in query:
            return {"data": {"upsertBucket": {"bucket": run, "inserted": not self.history}}}
        if "model(" in query:
            return {"data": {"model": {**owner, "bucket": run if self.history else None}}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/{name}"} for name in asked["variables"]["files"]]
            return {"data": {"createRunFiles": {"runID": "run", "uploadHeaders": [], "files": files}}}
        if query.lstrip().startswith("mutation"):
            return {"data": None, "errors": [{"message": "of no use to this server"}]}
        return {"data": {}}

    def _take(self, stream: dict[str, Any]) -> None:
        lines = stream.get("files", {}).get("wandb-history.jsonl")
        if lines:
            self.history[lines["offset"] :] = [json.loads(line) for line in lines["content"]]


class _Answer(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.dies_on is not None and self.server.dies_on in self.path:
            self.server.socket.close()
            self.connection.close()
            return
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        answer = json.dumps(self.server.answer(self.path, content)).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[Server]:
    """A server that answers."""
    with Server() as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()

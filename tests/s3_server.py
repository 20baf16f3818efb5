"""A local S3 server that fails when it is told to."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

from lightning_ccn.data.store_path import StorePath

Start = Callable[..., Any]
KEYS = {
    "AWS_ACCESS_KEY_ID": "key",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class S3Server:
    """S3 on this machine, in a thread. `environment` is what a client needs to find it.

    Attributes:
        requests: "METHOD path" of each request so far.
        fails: Says of a request ("METHOD path", its number from 1) how it fails: "" not at all, "500" and other codes,
            or "cut" for a body that ends in the middle.
    """

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}", **KEYS}
        self.requests: list[str] = []
        self.fails: Callable[[str, int], str] = lambda request, number: ""

    def _answer(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.requests.append(request)
        how = self.fails(request, len(self.requests))
        if how in ("", "cut"):
            answer = self._app(environ, start)
            return answer if not how else [b"".join(answer)[:40]]  # of more bytes than the header has announced
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        start(f"{how} Injected", [("Content-Length", "0")])
        return [b""]

    @contextmanager
    def failing(self, fails: Callable[[str, int], str]) -> Iterator[None]:
        """Fails some requests within the `with` block; the numbers count from its beginning."""
        before = len(self.requests)
        self.fails = lambda request, number: fails(request, number - before)
        try:
            yield
        finally:
            self.fails = lambda request, number: ""

    def new_bucket(self, name: str) -> StorePath:
        """Makes a bucket."""
        client = boto3.client("s3", endpoint_url=self.environment["AWS_ENDPOINT_URL"], **_client_keys())
        client.create_bucket(Bucket=name)
        return StorePath(f"s3://{name}")

    def stop(self) -> None:
        """Ends the server."""
        self._server.shutdown()
        self._thread.join()


def _client_keys() -> dict[str, str]:
    return {
        "aws_access_key_id": KEYS["AWS_ACCESS_KEY_ID"],
        "aws_secret_access_key": KEYS["AWS_SECRET_ACCESS_KEY"],
        "region_name": KEYS["AWS_DEFAULT_REGION"],
    }


def upload(folder: Path, to: StorePath) -> StorePath:
    """Uploads all files of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            (to / path.relative_to(folder).as_posix()).write(path)
    return to

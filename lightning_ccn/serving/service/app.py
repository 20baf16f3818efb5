"""`Service`: the HTTP service of a package as an ASGI application."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from dataclasses import asdict
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from lightning_ccn.serving.errors import PackageError, RequestError
from lightning_ccn.serving.request import Request
from lightning_ccn.serving.scorer import Scores
from lightning_ccn.serving.service.limits import Refusal, ServiceLimits
from lightning_ccn.serving.service.metrics import ServiceMetrics
from lightning_ccn.serving.service.plain_json import answer, place, read_document, read_requests
from lightning_ccn.serving.service.scoring_threads import ScoringThreads, late
from lightning_ccn.serving.service.served_package import ServedPackage, fits_form, form_texts, open_package
from lightning_ccn.serving.service.try_page import PAGE, POLICY

log = logging.getLogger("ccn.serve")

WITHOUT_TOKEN = ("/", "/healthz", "/readyz")  # whoever probes has no token, and the page has none of the model's data
NOT_HERE = {404: "there is no such path; there are {paths}", 405: "{path} does not take {method}"}


class Service:
    """Answers HTTP requests with a package.

    Args:
        path: The package; a symbolic link may be changed before `reload`.
        limits: What one caller may ask for.
        workers: Requests that are scored at a time.
        threads: Threads of one request.
        token: What callers must show; None: nothing.

    Attributes:
        stopping: Whether the service says that it ends: /readyz is 503, and every answer closes its connection.

    Raises:
        PackageError: The package cannot be served.
    """

    def __init__(
        self, path: Path, limits: ServiceLimits, workers: int = 1, threads: int = 1, token: str | None = None
    ) -> None:
        self.stopping = False
        self._path, self._limits, self._one_request = path, limits, threads
        self._token = None if token is None else _digest(token.encode())
        self._served = open_package(path, threads)
        self._threads = ScoringThreads(workers, limits.most_waiting)
        self._metrics = ServiceMetrics(lambda: self._threads.taken)
        self._metrics.serves(self._served)
        handlers = {"/": self._page, "/healthz": self._health, "/readyz": self._ready, "/metrics": self._text}
        handlers |= {"/package": self._package}
        routes = [Route(path, handler, methods=["GET"]) for path, handler in handlers.items()]
        routes.append(Route("/score", self._score, methods=["POST"]))
        self._paths = [route.path for route in routes]
        self._app = Starlette(
            routes=routes,
            exception_handlers={Refusal: _refuse, HTTPException: self._not_here, Exception: _unforeseen},
        )

    @property
    def served(self) -> ServedPackage:
        """The package in service."""
        return self._served

    def reload(self) -> bool:
        """Serves what is at the path now; requests that have begun are answered by the old package.

        Returns:
            Whether it could be read; otherwise the old package stays in service.
        """
        try:
            served = open_package(self._path, self._one_request)
        except Exception as error:  # whatever is wrong with the new package, the old one is right
            log.error("reload failed, and the old package stays in service: %s", error)
            if not isinstance(error, PackageError):
                log.error("this is an error of the program, not of the package:", exc_info=error)
            self._metrics.reloaded(False)
            return False
        self._served = served
        self._metrics.serves(served)
        self._metrics.reloaded(True)
        log.info("reloaded: %s", words(served))
        return True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers an HTTP request, as ASGI says."""
        path = scope["path"] if scope["path"] in self._paths else "other"
        start, statuses = time.monotonic(), []

        async def answering(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                message["headers"] += [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store")]
                if self.stopping or message["status"] == 408:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            if self._is_allowed(scope):
                await self._app(scope, receive, answering)
            else:
                wrong = "this token is wrong; " if b"authorization" in dict(scope["headers"]) else ""
                words = f"{wrong}a token is needed, in the header `Authorization: Bearer TOKEN`"
                await _error(401, words, {"www-authenticate": "Bearer"})(scope, receive, answering)
        finally:
            for status in statuses:
                self._metrics.answered(path, status)
                if path == "/score" and status == 200:
                    self._metrics.took(time.monotonic() - start)

    def _is_allowed(self, scope: Scope) -> bool:
        if self._token is None or scope["path"] in WITHOUT_TOKEN:
            return True
        given = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, token = given.partition(b" ")
        # digests have one length, so the time of the comparison tells nothing of the token
        return hmac.compare_digest(_digest(token.strip()), self._token) and kind.lower() == b"bearer"

    async def _score(self, request: HTTPRequest) -> Response:
        deadline = time.monotonic() + self._limits.most_seconds
        _check_type(request)
        with self._threads.place():  # before the body, so that bodies are bounded too
            body = await self._body(request, deadline)
            served = self._served  # one package for all of the body
            answered = await self._threads.run(lambda: self._answer(served, body, deadline), deadline)
        return Response(answered, media_type="application/json")

    async def _body(self, request: HTTPRequest, deadline: float) -> bytes:
        most = self._limits.most_bytes
        too_large = Refusal(413, f"the body has more than {most:,} bytes; send fewer candidates or requests at once")
        try:
            if int(request.headers.get("content-length", "0")) > most:
                raise too_large
        except ValueError:
            raise Refusal(400, "Content-Length is not a number") from None
        body = bytearray()
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise too_large
        except TimeoutError:
            raise Refusal(408, f"the body did not come within {self._limits.most_seconds:g} seconds") from None
        except ClientDisconnect:
            raise Refusal(400, "the connection ended before the body") from None
        return bytes(body)

    def _answer(self, served: ServedPackage, body: bytes, deadline: float) -> bytes:
        """Runs in a thread: reading JSON takes as long as scoring."""
        requests, several = read_requests(read_document(body), self._limits)
        scores: list[Scores] = []
        for at, each in enumerate(requests):
            if time.monotonic() > deadline:
                raise late()
            scores.append(_one(served, each, place(at) if several else ""))
        answered = answer(scores, several, served.digest)
        self._metrics.scored(scores)
        return answered

    async def _health(self, request: HTTPRequest) -> Response:
        return JSONResponse({"alive": True})

    async def _ready(self, request: HTTPRequest) -> Response:
        return _error(503, "the service is stopping") if self.stopping else JSONResponse({"ready": True})

    async def _text(self, request: HTTPRequest) -> Response:
        return Response(self._metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})

    async def _package(self, request: HTTPRequest) -> Response:
        served = self._served
        manifest = served.scorer.manifest
        return JSONResponse(
            {
                "system": manifest.system,
                "exported": manifest.exported,
                "digest": served.digest,
                "limits": asdict(self._limits),
                "request": served.request,
                "examples": [form_texts(each) for each in served.examples if fits_form(each)],
            }
        )

    async def _page(self, request: HTTPRequest) -> Response:
        return HTMLResponse(PAGE, headers={"content-security-policy": POLICY, "referrer-policy": "no-referrer"})

    async def _not_here(self, request: HTTPRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = NOT_HERE.get(error.status_code, error.detail)
        said = said.format(paths=", ".join(self._paths), path=request.url.path, method=request.method)
        return _error(error.status_code, said, dict(error.headers or {}))


def words(served: ServedPackage) -> str:
    """A package in a line of the log."""
    manifest = served.scorer.manifest
    return f"{manifest.system}, exported {manifest.exported}, package {served.digest[:12]}"


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _one(served: ServedPackage, request: Request, where: str) -> Scores:
    try:
        return served.scorer.answer(request)
    except RequestError as error:
        raise Refusal(422, f"{where}{error}") from None


def _check_type(request: HTTPRequest) -> None:
    kind, _, parameters = request.headers.get("content-type", "").lower().partition(";")
    charset = parameters.strip().partition("charset=")[2].strip('"') or "utf-8"
    if kind.strip() != "application/json" or charset != "utf-8":
        raise Refusal(415, "the body must be JSON in UTF-8, with the header `Content-Type: application/json`")
    if (encoding := request.headers.get("content-encoding", "identity").lower()) != "identity":
        raise Refusal(415, f"Content-Encoding: {encoding[:60]} is not read; send the body as it is")


def _error(status: int, words: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": words}, status, headers)


async def _refuse(request: HTTPRequest, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return _error(error.status, error.words, dict(error.headers))


async def _unforeseen(request: HTTPRequest, error: Exception) -> Response:
    """After it, the error goes on to the server, which logs it."""
    return _error(500, "an error of the service; its log has more")

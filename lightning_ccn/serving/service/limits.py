"""What one caller may ask of the service, and how a request beyond it is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ServiceLimits:
    """How much a caller may ask for.

    Attributes:
        most_bytes: Of a body.
        most_items: Candidates of a request.
        most_requests: Requests of one body.
        most_seconds: From the head of an HTTP request to its answer.
        most_waiting: HTTP requests that are received or wait, beside those that are scored.
    """

    most_bytes: int = 4 << 20
    most_items: int = 1000
    most_requests: int = 64
    most_seconds: float = 5.0
    most_waiting: int = 64


class Refusal(Exception):
    """An HTTP request is not answered.

    Args:
        status: The HTTP status.
        words: What is wrong, and what would do.
        headers: More headers of the answer.
    """

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(words)
        self.status, self.words, self.headers = status, words, headers or {}

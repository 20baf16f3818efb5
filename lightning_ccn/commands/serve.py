"""`ccn serve`: answers HTTP requests with a package. Runs where torch and Lightning are not installed."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lightning_ccn.errors import OneLineParser
from lightning_ccn.serving.service.limits import ServiceLimits
from lightning_ccn.serving.service.serve import serve

LIMITS = ServiceLimits()
T = TypeVar("T", int, float)
MILLION, HOUR = 1_000_000, 3600


def run(args: list[str]) -> int:
    """Serves until SIGTERM or Ctrl-C.

    Returns:
        The exit code.

    Raises:
        OptionError, PackageError: The package cannot be served, or not there; the message says why.
    """
    options = vars(_parser().parse_args(args))
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    limits = ServiceLimits(**{name: options.pop(name) for name in vars(LIMITS)})
    return serve(**options, limits=limits)


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="ccn serve",
        description="Answer HTTP requests with a package that `ccn export` wrote. A browser shows a page to try it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("package", type=Path, help="Folder of the package, or a symbolic link to it; SIGHUP reads it anew.")
    add("--host", default="127.0.0.1", help="Name or address to listen at.")
    add("--port", type=_within(int, 0, 65_535), default=8000, help="Port to listen at; 0: a free one.")
    add("--token_file", type=Path, help="File with the token that callers must show.")
    most, count, threads = "Most %s.", _within(int, 1, MILLION), _within(int, 1, 1024)
    add("--most_bytes", type=_within(int, 1, 2**30), default=LIMITS.most_bytes, help=most % "bytes of a body")
    add("--most_items", type=count, default=LIMITS.most_items, help=most % "candidates of a request")
    add("--most_requests", type=count, default=LIMITS.most_requests, help=most % "requests of one body")
    seconds = _within(float, 0.001, HOUR)
    add("--most_seconds", type=seconds, default=LIMITS.most_seconds, help=most % "seconds of an answer")
    waiting = most % "requests that are received or wait, beside those that are scored"
    add("--most_waiting", type=_within(int, 0, MILLION), default=LIMITS.most_waiting, help=waiting)
    add("--workers", type=threads, default=len(os.sched_getaffinity(0)), help="Requests that are scored at a time.")
    add("--threads", type=threads, default=1, help="Threads of one request.")
    drain = "Seconds after SIGTERM in which requests are still taken."
    add("--drain_seconds", type=_within(float, 0, HOUR), default=3.0, help=drain)
    return parser


def _within(kind: Callable[[str], T], lowest: float, highest: float) -> Callable[[str], T]:
    """What argparse makes a value with: of a type, and within bounds."""

    def value(text: str) -> T:
        try:
            number = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of type {kind.__name__}") from None
        if not lowest <= number <= highest:
            raise argparse.ArgumentTypeError(f"{text} must be from {lowest:,} to {highest:,}")
        return number

    return value

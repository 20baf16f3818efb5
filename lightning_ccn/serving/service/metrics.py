"""What `/metrics` says, in the format of Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from lightning_ccn.serving.scorer import Scores
from lightning_ccn.serving.service.served_package import ServedPackage

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
CANDIDATES = (1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class ServiceMetrics:
    """The metrics of one service.

    Args:
        taken: Tells how many requests are received, wait or are scored.
    """

    def __init__(self, taken: Callable[[], int]) -> None:
        disable_created_metrics()  # a second series for each, which says when it began
        self._registry = CollectorRegistry()
        at: dict[str, Any] = {"registry": self._registry}
        ProcessCollector(**at)
        self._answers = Counter("ccn_http_answers", "HTTP answers", ("path", "status"), **at)
        self._seconds = Histogram(
            "ccn_score_seconds", "From the head of POST /score to its answer, if that is 200", buckets=SECONDS, **at
        )
        self._candidates = Histogram("ccn_candidates", "Candidates of a scored request", buckets=CANDIDATES, **at)
        self._probability = Counter(
            "ccn_probability", "Sum of all probabilities given; by ccn_candidates_sum, it is their mean", **at
        )
        self._unknown = Counter("ccn_unknown_ids", "Ids that the package does not know", ("field",), **at)
        self._defaulted = Counter(
            "ccn_fields_left_out", "Requests without a feature, or with an unknown number", ("field",), **at
        )
        self._reloads = Counter("ccn_reloads", "Packages read on SIGHUP", ("result",), **at)
        self._stale = Gauge("ccn_reload_failed", "1: the newest package could not be read, an older one serves", **at)
        self._package = Info("ccn_package", "The package in service", **at)
        Gauge("ccn_requests_in_progress", "Requests that are received, wait or are scored", **at).set_function(taken)
        for result in ("done", "failed"):
            self._reloads.labels(result)  # 0 until the first

    def text(self) -> bytes:
        """All metrics."""
        return generate_latest(self._registry)

    def answered(self, path: str, status: int) -> None:
        """Counts an HTTP answer; `path` is one of the service's own, so that nobody can make up series."""
        self._answers.labels(path, str(status)).inc()

    def took(self, seconds: float) -> None:
        """Counts the time of a scored body."""
        self._seconds.observe(seconds)

    def scored(self, scores: Sequence[Scores]) -> None:
        """Counts scored requests."""
        for each in scores:
            self._candidates.observe(len(each.probability))
            self._probability.inc(float(each.probability.sum()))
            for field, ids in each.unknown.items():
                self._unknown.labels(field).inc(ids)
            for field in each.defaulted:
                self._defaulted.labels(field).inc()

    def serves(self, package: ServedPackage) -> None:
        """Names the package in service."""
        manifest = package.scorer.manifest
        self._package.info(
            {
                "digest": package.digest,
                "checkpoint": manifest.checkpoint,
                "system": manifest.system,
                "exported": manifest.exported,
                "version": manifest.version,
            }
        )

    def reloaded(self, done: bool) -> None:
        """Counts a SIGHUP."""
        self._reloads.labels("done" if done else "failed").inc()
        self._stale.set(0 if done else 1)

"""Scores of an exported package: numpy and ONNX Runtime alone, no torch."""

from lightning_ccn.serving.errors import PackageError, RequestError
from lightning_ccn.serving.request import Request
from lightning_ccn.serving.scorer import Scorer, Scores

__all__ = ["PackageError", "Request", "RequestError", "Scorer", "Scores"]

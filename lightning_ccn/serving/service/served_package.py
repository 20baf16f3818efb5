"""The package that is in service, opened whole, so that nothing of it is missing when a request comes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lightning_ccn.serving.errors import PackageError, RequestError
from lightning_ccn.serving.manifest import Manifest
from lightning_ccn.serving.package import EXAMPLES, MANIFEST, REQUEST
from lightning_ccn.serving.request import Request
from lightning_ccn.serving.scorer import Scorer


@dataclass(frozen=True)
class ServedPackage:
    """A package in service.

    Attributes:
        scorer: Scores requests.
        digest: SHA-256 of package.json, which has those of all other files.
        request: What a request is, as a JSON Schema.
        examples: Requests to begin with.
    """

    scorer: Scorer
    digest: str
    request: Mapping[str, Any]
    examples: tuple[Mapping[str, Any], ...]


def open_package(path: Path, threads: int) -> ServedPackage:
    """Opens a package, and scores with it once.

    Args:
        path: The folder, or a symbolic link to it.
        threads: Threads of one request.

    Raises:
        PackageError: It is not whole, is exchanged right now, or does not give probabilities.
    """
    folder = path.resolve()  # a link that is changed meanwhile still means one folder
    try:
        scorer = Scorer(folder, threads)
        request = _read(folder / REQUEST)
        examples = _examples(folder / EXAMPLES) if (folder / EXAMPLES).exists() else []
        for plain in ({"items": [None]}, *examples):
            _try(scorer, plain, folder)
        said = (folder / MANIFEST).read_bytes()
        if Manifest.from_json(said.decode()) != scorer.manifest:
            raise PackageError(f"{folder}: was exchanged while it was opened; open it again")
    except OSError as error:
        raise PackageError(f"{error.filename or folder}: cannot be read: {error.strerror}") from None
    return ServedPackage(scorer, hashlib.sha256(said).hexdigest(), request, tuple(examples))


def _examples(path: Path) -> list[Any]:
    """The requests of examples.json: a body for /score, or a list, as older packages have it."""
    read = _read(path)
    found = read.get("requests") if isinstance(read, dict) else read
    if not isinstance(found, list):
        raise PackageError(f"{path}: has no list of requests; export the checkpoint again")
    return found


def _try(scorer: Scorer, plain: Any, folder: Path) -> None:
    try:
        scores = scorer.answer(Request.from_plain(plain))
    except RequestError as error:
        raise PackageError(f"{folder}: does not score a request of its own, {error}; export again") from None
    given = (scores.probability, scores.order_probability)
    if not all(np.isfinite(each).all() for each in given if each is not None):
        raise PackageError(f"{folder}: gives a probability that is not a number; train and export again")


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise PackageError(f"{path}: is not JSON: {error}; export the checkpoint again") from None


def fits_form(plain: Mapping[str, Any]) -> bool:
    """Whether the page's form can hold a request: a line has one id, and `null` is an unknown one."""
    values = [each for value in plain.values() for each in (value.values() if isinstance(value, dict) else [value])]
    ids = [each for value in values for each in (value if isinstance(value, list) else [value])]
    return not any(isinstance(each, str) and (not each or each == "null" or len(each.splitlines()) > 1) for each in ids)


def form_texts(plain: Mapping[str, Any]) -> dict[str, str]:
    """A request as texts by field, as `user.city`, since a browser's numbers would round long ids.

    Ids that are text have a line each: they may have commas and spaces.
    """
    texts: dict[str, str] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            texts |= {f"{name}.{key}": _text(each) for key, each in value.items()}
        else:
            texts[name] = _text(value)
    return texts


def _text(value: Any) -> str:
    if isinstance(value, list):
        between = "\n" if any(isinstance(each, str) for each in value) else ", "
        return between.join("null" if each is None else str(each) for each in value)
    return "" if value is None else str(value)

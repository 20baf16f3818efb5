"""From a body to requests, and from scores to a body: strict JSON both ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from lightning_ccn.serving.errors import RequestError
from lightning_ccn.serving.request import Request
from lightning_ccn.serving.scorer import Scores
from lightning_ccn.serving.service.limits import Refusal, ServiceLimits

REQUESTS, ANSWERS = "requests", "answers"


def read_document(body: bytes) -> Any:
    """The value of a JSON document in UTF-8.

    Raises:
        Refusal: 400; it is none, names a field twice, or has NaN or an infinity.
    """
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant, object_pairs_hook=_once_each)
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the body is not UTF-8: byte {error.start} of it is wrong") from None
    except json.JSONDecodeError as error:
        raise Refusal(400, f"the body is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply for a request") from None
    except ValueError:  # Python's limit of digits
        raise Refusal(400, "the body has an integer with thousands of digits") from None


def _refuse_constant(name: str) -> NoReturn:
    raise Refusal(400, f"the body has {name}, which is not JSON; give null for an unknown number")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Refusal(400, f"the body has the field {twice[:60]!r} twice in one object")
    return fields


def read_requests(document: Any, limits: ServiceLimits) -> tuple[list[Request], bool]:
    """The requests of a document, and whether it has a list of them.

    Raises:
        Refusal: 422; a field is missing, unknown or of another form, or there are too many of something.
    """
    if not isinstance(document, dict) or REQUESTS not in document:
        return [_one(document, "", limits)], False
    several = document[REQUESTS]
    if others := [name for name in document if name != REQUESTS]:
        raise Refusal(422, f"{others[0][:60]!r}: no such field beside {REQUESTS}; put it into each of them")
    if not isinstance(several, list):
        raise Refusal(422, f"{REQUESTS}: must be a list")
    if len(several) > limits.most_requests:
        raise Refusal(
            422, f"{REQUESTS}: has {len(several):,}, and at most {limits.most_requests:,} are answered at once"
        )
    return [_one(plain, place(at), limits) for at, plain in enumerate(several)], True


def place(at: int) -> str:
    """What an error of a request in a list begins with."""
    return f"{REQUESTS}[{at}]."


def _one(plain: Any, where: str, limits: ServiceLimits) -> Request:
    try:
        request = Request.from_plain(plain)
    except RequestError as error:
        raise Refusal(422, f"{where}{error}") from None
    if len(request.items) > limits.most_items:
        raise Refusal(
            422,
            f"{where}items: has {len(request.items):,} candidates, and at most {limits.most_items:,} of a request are "
            "scored",
        )
    return request


def answer(scores: Sequence[Scores], several: bool, digest: str) -> bytes:
    """The body of an answer.

    Args:
        scores: Of each request.
        several: Whether the document had a list of requests.
        digest: Of the package that gave them.

    Raises:
        Refusal: 500; a score is not a finite number.
    """
    answers = ",".join([_object_of(each) for each in scores])
    if several:
        return f'{{"{ANSWERS}":[{answers}],"package":"{digest}"}}'.encode()
    return f'{answers[:-1]},"package":"{digest}"}}'.encode()


def _object_of(scores: Scores) -> str:
    fields = {
        "probability": _numbers(scores.probability),
        "degree": "null" if scores.degree is None else _numbers(scores.degree),
        "intent": "null" if scores.intent is None else _numbers(np.array([scores.intent], np.float32))[1:-1],
        "unknown": json.dumps(dict(scores.unknown)),
        "unknown_items": json.dumps(scores.unknown_items.tolist()),
        "defaulted": json.dumps(scores.defaulted),
    }
    if scores.order_probability is not None:
        fields["order_probability"] = _numbers(scores.order_probability)
    return "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"


def _numbers(values: np.ndarray) -> str:
    """Float32 [n], with the nine digits that tell each value from all others; `json` takes several times as long."""
    if not np.isfinite(values).all():
        raise Refusal(500, "the package gives a probability that is not a number; train and export it again")
    return "[" + ",".join([f"{value:.9g}" for value in values.tolist()]) + "]"

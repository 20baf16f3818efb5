"""`Scorer`: probabilities of a request's candidates, from an exported package."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from lightning_ccn.errors import OptionError
from lightning_ccn.serving.errors import PackageError
from lightning_ccn.serving.graph_inputs import GraphInputs
from lightning_ccn.serving.id_lookup import IdLookup
from lightning_ccn.serving.manifest import Manifest
from lightning_ccn.serving.package import AGAIN, COMPILED, GRAPH, Package
from lightning_ccn.serving.request import Ids, Request, Rows, encode
from lightning_ccn.serving.request_times import Seconds

Engine = Literal["onnx", "compiled"]
AT_ONCE = 1 << 14  # candidates that a graph scores at a time: each takes some 10 kB meanwhile
PROBABILITY, DEGREE, INTENT, ORDER = "probability", "degree", "intent", "order_probability"  # outputs of a graph
Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Scores:
    """The answer to a request.

    Attributes:
        probability: Float32 [items], of a click on each candidate, in the order of the request.
        degree: Float32 [items], the collaborative degree: how well a candidate fits this user after this trigger; None
            for a system without one.
        intent: The probability that the user entered because of the trigger; None for a system that does not estimate
            it.
        unknown: How many ids of each field are not in the vocabularies; fields without any are left out.
        unknown_items: Int64 [unknown candidates], their places in `items`, from 0 and in order.
        defaulted: Features and numbers that the request left out, and numbers of which one or more are unknown.
        order_probability: Float32 [items], of an order of each candidate, p(click) p(order | click); None for a model
            without an order head.
    """

    probability: np.ndarray
    degree: np.ndarray | None
    intent: float | None
    unknown: Mapping[str, int]
    unknown_items: np.ndarray
    defaulted: tuple[str, ...]
    order_probability: np.ndarray | None


class Scorer:
    """Scores requests with an exported package. Safe to use from several threads.

    Args:
        folder: The package, a folder that `ccn export` wrote.
        threads: Threads of one request. Where several requests run at a time, one thread each is fastest.
        engine: `onnx`: ONNX Runtime. `compiled`: the graph that was compiled for the CPU of the export; needs torch.

    Raises:
        PackageError: The folder is no whole package of this version.
        OptionError: `threads` is no integer of 1 or more, or there is no such engine.

    Example::

        scorer = Scorer("packages/today")
        scores = scorer.score(user={"user": 17}, trigger=4, short=[9, 4], long=[3, 9, 4], items=[5, 6, 7])
        scores.probability  # float32 [3]
    """

    def __init__(self, folder: str | Path, threads: int = 1, engine: Engine = "onnx") -> None:
        if not isinstance(threads, int) or threads < 1:
            raise OptionError(f"threads is {threads!r}: it must be an integer of 1 or more")
        if engine not in get_args(Engine):
            raise OptionError(f"engine is {engine!r}: it must be one of {', '.join(get_args(Engine))}")
        self._threads, self._engine = threads, engine
        self._serving = _Serving(Package(folder), threads, engine)

    @property
    def manifest(self) -> Manifest:
        """What package.json of the package says that is served now."""
        return self._serving.package.manifest

    @property
    def lookups(self) -> Mapping[str, IdLookup]:
        """Where the log's ids are in each table of the package that is served now."""
        return self._serving.package.ids

    def score(
        self,
        items: Ids,
        user: Mapping[str, Any] | None = None,
        trigger: Any = None,
        short: Ids = (),
        long: Ids = (),
        numbers: Mapping[str, Sequence[float | None]] | None = None,
        page_numbers: Mapping[str, float | None] | None = None,
        time: int | None = None,
        short_times: Seconds = (),
        long_times: Seconds = (),
    ) -> Scores:
        """Scores the candidates of one request; the arguments are those of `Request`.

        Raises:
            RequestError: The request cannot be scored; the message names the field.
        """
        of_times = (time, short_times, long_times)
        request = Request(items, user or {}, trigger, short, long, numbers or {}, page_numbers or {}, *of_times)
        return self.answer(request)

    def score_many(self, requests: Iterable[Request]) -> list[Scores]:
        """Scores requests one after another, all with the same package."""
        serving = self._serving
        return [serving.answer(request) for request in requests]

    def answer(self, request: Request) -> Scores:
        """Scores a request.

        Raises:
            RequestError: The request cannot be scored; the message names the field.
        """
        return self._serving.answer(request)

    def score_rows(self, rows: Rows) -> Scores:
        """Scores a page whose ids are rows of tables already."""
        return self._serving.score(rows)

    def reload(self, folder: str | Path) -> None:
        """Serves another package from now on. Requests that have begun are answered by the old one.

        Raises:
            PackageError: The folder is no whole package of this version; the old one stays in service.
        """
        self._serving = _Serving(Package(folder), self._threads, self._engine)


class _Serving:
    """A package in service; it never changes, so a request has one package from its first to its last line."""

    def __init__(self, package: Package, threads: int, engine: Engine) -> None:
        self.package = package
        try:
            self._inputs = GraphInputs(package)
            self._run = (_onnx if engine == "onnx" else _compiled)(package, threads)
            self.answer(Request(items=[None]))  # opens the tables, and shows whether the graph takes them
        except PackageError:
            raise
        except Exception as error:  # numpy and ONNX Runtime have many ways to say that parts do not fit
            said = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"
            raise PackageError(f"{package.folder}: its parts do not fit together ({said}); {AGAIN}") from None

    def answer(self, request: Request) -> Scores:
        return self.score(encode(request, self.package.manifest, self.package.ids))

    def score(self, rows: Rows) -> Scores:
        count = len(rows.items)
        parts = [self._run(self._inputs(part)) for part in _parts(rows)]

        def of_items(name: str) -> np.ndarray:
            return np.concatenate([part[name] for part in parts])[:count]

        return Scores(
            probability=of_items(PROBABILITY),
            degree=of_items(DEGREE) if DEGREE in parts[0] else None,
            intent=float(parts[0][INTENT][0]) if INTENT in parts[0] else None,
            unknown=rows.unknown,
            unknown_items=np.flatnonzero(rows.items == 0),
            defaulted=rows.defaulted,
            order_probability=of_items(ORDER) if ORDER in parts[0] else None,
        )


def _parts(rows: Rows) -> Iterator[Rows]:
    """The same page with some of the candidates at a time."""
    if not len(rows.items):  # a graph takes one candidate or more; of none, it still says what the system estimates
        yield replace(rows, items=np.zeros(1, np.int64), numbers=np.zeros((1, rows.numbers.shape[1]), np.float32))
    for start in range(0, len(rows.items), AT_ONCE):
        stretch = slice(start, start + AT_ONCE)
        yield replace(rows, items=rows.items[stretch], numbers=rows.numbers[stretch])


def _onnx(package: Package, threads: int) -> Run:
    import onnxruntime  # here, since a package can also be served compiled

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    path = package.folder / GRAPH
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has a class of its own for each cause
        raise PackageError(f"{path}: ONNX Runtime cannot read it: {' '.join(str(error).split())}") from None
    wanted, outputs = [entry.name for entry in session.get_inputs()], [entry.name for entry in session.get_outputs()]

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        values = session.run(outputs, {name: inputs[name] for name in wanted})
        return dict(zip(outputs, values, strict=True))

    return run


def _compiled(package: Package, threads: int) -> Run:
    path = package.folder / COMPILED
    if not path.is_file():
        raise PackageError(f"{path}: is missing; export again with a C++ compiler at hand, or serve with ONNX")
    from lightning_ccn.serving.aot_inductor import load_graph  # here, since it imports torch

    return load_graph(path, threads)

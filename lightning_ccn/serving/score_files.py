"""`ccn score`: files of requests to Parquet parts of scores, in several processes, resumable. Needs pyarrow."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data.new_folder import PLAN, NewFolder, is_of
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.serving.errors import RequestError
from lightning_ccn.serving.package import MANIFEST, Package, sha256_of
from lightning_ccn.serving.request import Request
from lightning_ccn.serving.request_files import Block, RequestColumns, blocks_of
from lightning_ccn.serving.scorer import DEGREE, ORDER, PROBABILITY, Scorer, Scores

OTHERWISE = "remove it, or name another folder"


@dataclass(frozen=True)
class Scored:
    """What was scored, in one or more blocks.

    Attributes:
        requests, candidates: How many.
        unknown: Unknown ids by field of the requests.
        defaulted: Requests without a feature, or with an unknown number, by its name.
        copied: Columns that are no part of a request.
    """

    requests: int
    candidates: int
    unknown: Counter[str]
    defaulted: Counter[str]
    copied: frozenset[str]

    def __add__(self, other: Scored) -> Scored:
        return Scored(
            self.requests + other.requests,
            self.candidates + other.candidates,
            self.unknown + other.unknown,
            self.defaulted + other.defaulted,
            self.copied | other.copied,
        )

    def __str__(self) -> str:
        """A line for each thing that a user should see."""
        lines = [f"requests scored now: {self.requests:,}; candidates: {self.candidates:,}"]
        for what, counts in (("unknown ids", self.unknown), ("requests without a value of", self.defaulted)):
            if counts:
                lines.append(f"{what}: " + ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())))
        if self.copied:
            lines.append(f"columns that the model does not read, copied: {', '.join(sorted(self.copied))}")
        return "\n".join(lines)


def score_files(package: Path, requests: Path, output: Path, processes: int = 1) -> Scored:
    """Scores requests, one a row.

    Columns are `items`, `trigger`, `short`, `long`, the times of a package that reads them, and the features and
    numbers of the package by their names, with the log's own ids. Any other column is copied to each of the request's
    candidates.

    A run that ended early goes on where it was: the parts that it has finished stay.

    Args:
        package: The package, a folder that `ccn export` wrote.
        requests: A Parquet or CSV file, or a folder of them. A list in CSV is written `a|b|c`.
        output: Folder for the scores, one part for each row group or CSV file. It appears when it is complete.
        processes: How many processes score; each needs a core.

    Returns:
        What was scored now; finished parts of a run that ended early are not counted.

    Raises:
        DataError: A file cannot be read, or a request cannot be scored; the message names the row.
        PackageError: The folder is no package.
        OptionError: `processes` is below 1.
    """
    if processes < 1:
        raise OptionError(f"--processes is {processes}: it must be 1 or more")
    Package(package)  # refused before any work
    blocks = list(blocks_of(requests))
    plan = {"package": sha256_of(package / MANIFEST), "blocks": [asdict(block) for block in blocks]}
    new = NewFolder(output, OTHERWISE, goes_on=lambda part: is_of(part, plan))
    paths = [new.part / f"part-{number:05d}.parquet" for number in range(len(blocks))]
    try:
        (new.part / PLAN).write_text(json.dumps(plan))
        work = [(package, block, path) for block, path in zip(blocks, paths, strict=True) if not path.exists()]
        if processes == 1:
            scored = [_score_block(*of_block) for of_block in work]
        else:
            with multiprocessing.get_context("spawn").Pool(processes) as pool:
                scored = pool.starmap(_score_block, work, chunksize=1)
    except BaseException:  # Ctrl-C, too
        if any(path.exists() for path in paths):
            new.leave()
        else:
            new.discard()
        raise
    (new.part / PLAN).unlink()
    new.finish()
    return sum(scored, Scored(0, 0, Counter(), Counter(), frozenset()))


@cache
def _scorer(package: Path) -> Scorer:
    """The scorer of a process; its pages are shared with the other processes."""
    return Scorer(package)


def _score_block(package: Path, block: Block, path: Path) -> Scored:
    """Writes the part of a block."""
    scorer, table = _scorer(package), block.read()
    columns = RequestColumns(block, table, scorer.manifest)
    answers: list[Scores] = []
    for row in range(table.num_rows):
        try:
            answers.append(scorer.answer(columns.request(row)))
        except RequestError as error:
            raise DataError(f"{block.file}: row {block.first_row + row}: {error}") from None
    scores = _scores(table, columns, answers, scorer.answer(Request(items=[])))
    unfinished = path.with_suffix(".unfinished")
    pq.write_table(scores, unfinished, compression="zstd")
    os.replace(unfinished, path)
    unknown: Counter[str] = Counter()
    for answer in answers:
        unknown.update(answer.unknown)
    defaulted = Counter(name for answer in answers for name in answer.defaulted)
    return Scored(table.num_rows, scores.num_rows, unknown, defaulted, frozenset(columns.copied))


def _scores(table: pa.Table, columns: RequestColumns, answers: list[Scores], empty: Scores) -> pa.Table:
    """One row a candidate: the columns that are copied, the candidate, its probabilities and its degree.

    Args:
        table: The rows of requests.
        columns: Their columns.
        answers: The answer to each.
        empty: The answer to a request without candidates: what a system gives is there even if there is no request.
    """
    lengths = [len(items) for items in columns.items]
    of_request = pa.array(np.repeat(np.arange(len(lengths)), lengths))
    found = {name: table.column(name).take(of_request) for name in columns.copied}
    items = [item for of_row in columns.items for item in of_row]
    if pa.types.is_string(columns.item_type):
        items = [None if item is None else str(item) for item in items]
    found["item"] = pa.array(items, columns.item_type)
    for name in (PROBABILITY, ORDER, DEGREE):
        of_answers = [getattr(answer, name) for answer in (empty, *answers)]
        if of_answers[0] is not None:
            found[name] = pa.array(np.concatenate(of_answers))
    return pa.table(found)

"""`ccn score`: files of requests to Parquet parts of scores, in several processes, resumable. Needs pyarrow."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lightning_ccn.data.new_folder import PLAN, NewFolder, is_of, naming
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.serving.errors import PackageError, RequestError
from lightning_ccn.serving.manifest import Manifest
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


@dataclass(frozen=True)
class Task:
    """A block to be scored.

    Attributes:
        package: Folder of the package, without links, which may be moved meanwhile.
        digest: SHA-256 of its package.json.
        block: The requests.
        part: Path of their scores.
        output: The folder that the scores are for, for messages.
    """

    package: Path
    digest: str
    block: Block
    part: Path
    output: Path


def score_files(package: Path, requests: Path, output: Path, processes: int = 1) -> Scored:
    """Scores requests, one a row.

    Columns are `items`, `trigger`, `short`, `long`, the times of a package that reads them, and the features and
    numbers of the package by their names, with the log's own ids. Any other column is copied to each of the request's
    candidates.

    A run that ended early goes on where it was: the parts that it has finished stay.

    Args:
        package: The package, a folder that `ccn export` wrote, or a link to it, which may be moved meanwhile.
        requests: A Parquet or CSV file, or a folder of them. A list in CSV is written `a|b|c`.
        output: Folder for the scores, one part for each row group or CSV file. It appears when it is complete. It must
            not be in the folder of the requests.
        processes: How many processes score; each needs a core.

    Returns:
        What was scored now; finished parts of a run that ended early are not counted.

    Raises:
        DataError: A file cannot be read or was changed meanwhile, or a request cannot be scored; the message names the
            row. Or the output is in the folder of the requests, or is not empty.
        PackageError: The folder is no package, or another one was put there meanwhile.
        OptionError: `processes` is below 1, or one of them was killed.
        OSError: The scores cannot be written; it names `output`.
    """
    if processes < 1:
        raise OptionError(f"--processes is {processes}: it must be 1 or more")
    _refuse_within(output, requests)
    package = Path(os.path.realpath(package))
    Package(package)  # refused before any work
    blocks, digest = list(blocks_of(requests)), sha256_of(package / MANIFEST)
    plan = {"package": digest, "blocks": [asdict(block) for block in blocks]}
    new = NewFolder(output, OTHERWISE, goes_on=lambda part: is_of(part, plan))
    paths = [new.part / f"part-{number:05d}.parquet" for number in range(len(blocks))]
    tasks = [Task(package, digest, block, path, output) for block, path in zip(blocks, paths, strict=True)]
    try:
        with naming(output):
            (new.part / PLAN).write_text(json.dumps(plan))
        left = [task for task in tasks if not task.part.exists()]
        scored = [_score_block(task) for task in left] if processes == 1 else _in_processes(left, processes)
    except BaseException:  # Ctrl-C, too
        if any(path.exists() for path in paths):
            new.leave()
        else:
            new.discard()
        raise
    (new.part / PLAN).unlink()
    new.finish()
    return sum(scored, Scored(0, 0, Counter(), Counter(), frozenset()))


def _refuse_within(output: Path, requests: Path) -> None:
    """Checks that scores, also unfinished ones, are not among the requests, where the next run would read them."""
    if requests.is_dir() and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(requests)):
        raise DataError(
            f"{output}: is in the folder of the requests, {requests}, whose files are all read as requests; name a "
            "folder outside of it"
        )


def _in_processes(tasks: Sequence[Task], count: int) -> list[Scored]:
    """Scores blocks in several processes, which end with this one, however it ends."""
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _end_with_parent) as pool:
        try:
            # they inherit the mask: Ctrl-C in a terminal reaches them too, and this process ends them
            unmasked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
            try:
                scored = [pool.submit(_score_block, task) for task in tasks]  # starts the processes
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, unmasked)
            return [future.result() for future in scored]  # not pool.map, whose cancelling makes a broken pool fail
        except BaseException as error:
            for process in set(multiprocessing.active_children()) - before:
                process.kill()  # or the pool would wait until their blocks are scored
            if isinstance(error, BrokenProcessPool):
                raise OptionError(
                    f"--processes is {count}: one of them was killed, as a system does that runs out of memory; take "
                    "fewer, or ask for more memory; the same command goes on"
                ) from None
            raise


def _end_with_parent() -> None:
    """Ends this process when its parent ends, even by SIGKILL; a pool's process would wait for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@lru_cache(maxsize=1)
def _scorer(package: Path, digest: str) -> Scorer:
    """The scorer of a process; its pages are shared with the other processes."""
    scorer = Scorer(package)  # opens the tables, which stay open if the package is exchanged later
    _refuse_exchanged(scorer, package, digest)
    return scorer


def _refuse_exchanged(scorer: Scorer, package: Path, digest: str) -> None:
    """Checks that a scorer has the package whose digest is in the plan, and that it is still there."""
    try:
        said = (package / MANIFEST).read_bytes()
    except OSError:
        said = b""
    if hashlib.sha256(said).hexdigest() != digest or Manifest.from_json(said.decode()) != scorer.manifest:
        raise PackageError(
            f"{package}: was exchanged while it scored; run the same command again, which scores all with the package "
            "that is there now; export packages to folders of their own, and move a link"
        )


def _score_block(task: Task) -> Scored:
    """Writes the part of a block."""
    block, scorer, table = task.block, _scorer(task.package, task.digest), task.block.read()
    columns = RequestColumns(block, table, scorer.manifest)
    answers: list[Scores] = []
    for row in range(table.num_rows):
        try:
            answers.append(scorer.answer(columns.request(row)))
        except RequestError as error:
            raise DataError(f"{block.file}: row {block.first_row + row}: {error}") from None
    scores = _scores(table, columns, answers, scorer.answer(Request(items=[])))
    _refuse_exchanged(scorer, task.package, task.digest)
    unfinished = task.part.with_suffix(".unfinished")
    with naming(task.output):
        pq.write_table(scores, unfinished, compression="zstd")
        os.replace(unfinished, task.part)
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

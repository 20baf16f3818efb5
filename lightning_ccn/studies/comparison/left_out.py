"""`ccn compare --leave_out COLUMN`: every value of a column is left out of training once, and tested on alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.file_lock import FileLock, HeldError
from lightning_ccn.data.leave_out import ValueCounts, counts_by_value, is_left_out, leave_out, left_out_mark
from lightning_ccn.data.places import on_disk
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.studies.comparison.cell import RESULT, Cells
from lightning_ccn.studies.comparison.protocol import LeftOut
from lightning_ccn.studies.comparison.statistics import PAIRED, over_values, paired
from lightning_ccn.studies.comparison.study import Study, bounds
from lightning_ccn.studies.comparison.work import PAUSE

MOST_VALUES = 100  # each is a copy of the training pages, and a run of every system
LOCK = ".lock"  # in the folder of the copies; who holds it makes them
LONGEST_NAME = 16  # letters of an original id that is shown in the place of a row; a hash is longer


def values_to_leave_out(dataset: Dataset, column: str) -> dict[int, ValueCounts]:
    """The values of a column, each of which can be left out, with their counts. The unknown value, 0, is not one.

    Args:
        dataset: The data.
        column: What the user gave as --leave_out.

    Raises:
        DataError: The data are in a store, or cannot be read.
        OptionError: There is no such column, or it has one value, too many, or one that leaves nothing to train on or
            to test.
    """
    option = f"--leave_out {column}"
    on_disk(dataset.folder, f"the folder of {option}", "--data.folder")
    known = [feature.name for feature in dataset.schema.user if not feature.many]
    if column not in known:
        raise OptionError(
            f"{option}: {dataset.folder}/schema.yaml has no profile feature of this name with one value per page; it "
            f"has {', '.join(known) or 'none'}"
        )
    found = counts_by_value(dataset, column, MOST_VALUES + 1)  # one more: 0 does not count
    values = {value: counts for value, counts in found.items() if value}
    if len(values) > MOST_VALUES:
        raise OptionError(
            f"{option}: has more than {MOST_VALUES} values, each of which would be a copy of the training pages and a "
            "run of every system; name a column with fewer, such as a scenario"
        )
    if len(values) < 2:
        raise OptionError(
            f"{option}: {dataset.folder} has {len(values)} value of it besides 0, the unknown one; to train on some "
            "and test on another, it needs two or more"
        )
    for value, counts in values.items():
        if not 0 < counts.clicks < counts.items:
            raise OptionError(
                f"{option}: {counts.clicks:,} of {counts.items:,} test items of value {value} are clicked, so it has "
                "no AUC: give every value test pages with both labels, or map it to 0, the unknown value"
            )
        for split in ("train", "validation"):
            if dataset.splits[split].pages == counts.pages[split]:
                raise OptionError(
                    f"{option}: all pages of {dataset.folder}/{split} have the value {value}, so nothing is left when "
                    "it is left out"
                )
    return values


def make_folders(cells: Cells, dataset: Dataset, left_out: Sequence[LeftOut], say: Callable[[str], None]) -> None:
    """Makes the dataset folders of what is left out, unless they are there; waits while another process makes them.

    Args:
        cells: The run folders, beside which the dataset folders are.
        dataset: The whole data.
        left_out: What to leave out, at least one.
        say: Called with a line of text for each folder that is made, and before it waits.

    Raises:
        DataError: A folder cannot be made, or is there and was made of other pages.
    """
    place, whole = cells.data(left_out[0]).parent, on_disk(dataset.folder, "the whole data")
    place.mkdir(parents=True, exist_ok=True)
    lock = None
    while lock is None:
        try:
            lock = FileLock(place / LOCK)
        except HeldError as error:
            say(f"waiting for {error}, which makes {place}")
            time.sleep(PAUSE)  # the other process says nothing when it is done; its lock is free then
    try:
        for one in left_out:
            folder = cells.data(one)
            if not is_left_out(folder, dataset, one.column, one.value):
                say(f"{folder}: all but {one.column} {one.value}")
                leave_out(whole, folder, column=one.column, value=one.value)
    finally:
        lock.release()


def refuse_other_pages(cells: Cells, dataset: Dataset, left_out: Sequence[LeftOut]) -> None:
    """Checks that all finished runs learned from copies of the data as they are now.

    Raises:
        DataError: A run did not, or a file of the data has changed since stats.json was written.
    """
    for one in left_out:
        of = left_out_mark(dataset, one.column, one.value)["of"]
        for file in sorted(cells.folder.glob(f"*/without-{one.folder}-*/{RESULT}")):
            if json.loads(file.read_text()).get("left_out_of") != of:
                raise DataError(
                    f"{file}: this run learned from other pages than {dataset.folder} has now: give the comparison "
                    f"another --output, or delete {cells.folder}/*/without-* and {cells.data(one).parent}"
                )


def names_of_values(dataset: Dataset, column: str, values: Sequence[int]) -> dict[int, str]:
    """What people call the values: their original ids where there is a vocabulary and they are short; else the rows."""
    table = next(feature.table for feature in dataset.schema.user if feature.name == column)
    file = dataset.folder / "vocabulary" / f"{table}.parquet"
    ids = Vocabulary.load(file).ids.to_pylist() if table in dataset.digests else []
    names = {value: str(ids[value - 1]) for value in values if value <= len(ids)}
    if len(names) < len(values) or any(len(name) > LONGEST_NAME for name in names.values()):
        return {value: str(value) for value in values}
    return names


def by_value(study: Study, baseline: str, dataset: Dataset, values: Mapping[int, ValueCounts]) -> dict[str, Any]:
    """What is reported of each left-out value, and over all.

    Args:
        study: The finished comparison.
        baseline: Name of the system to which differences are reported.
        dataset: The whole data.
        values: What `values_to_leave_out` found.

    Returns:
        These entries of compare.json. `left_out`: the column, and by value its counts, bounds, and each system's
        `summary` and `versus` over seeds. `systems` and `steps`, as `Study` has them, over all values: `summary` is the
        mean of the values' means with its error over values. `versus` is the mean of the values' differences, each of
        which is paired by seed; its interval and p are Student's, with the values as the sample, and `pairs` is their
        number. A run says what was `left_out`. `bounds`: their means over the values.
    """
    column = study.protocol.left_out[0].column
    names = names_of_values(dataset, column, list(values))
    entries, known, of_values, steps = [], [], [], []
    for one in study.protocol.left_out:
        systems = study.systems(baseline, one)
        of_values.append(systems)
        steps.append(study.steps(systems, one))
        known.append(bounds(systems))
        counts = values[one.value]
        entries.append(
            {
                "value": one.value,
                "name": names[one.value],
                "pages": counts.pages,
                "items": counts.items,
                "clicks": counts.clicks,
                "bounds": known[-1],
                "systems": [
                    {key: system[key] for key in ("name", "title", "family", "summary", "versus")} for system in systems
                ],
            }
        )
    return {
        "bounds": {name: sum(of[name] for of in known) / len(known) for name in known[0]},
        "left_out": {"column": column, "values": entries},
        "systems": [_over_all(list(values), same) for same in zip(*of_values, strict=True)],
        "steps": [
            {**same[0], "versus": _versus_over_all(list(values), [step["versus"] for step in same])}
            for same in zip(*steps, strict=True)
        ],
    }


def _over_all(values: Sequence[int], of_values: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A system over all left-out values, from its entries for each of them."""
    metrics = {metric for entry in of_values for metric in entry["summary"]}
    means = {m: [entry["summary"].get(m, {}).get("mean") for entry in of_values] for m in sorted(metrics)}
    versus = [entry["versus"] for entry in of_values]
    return {
        **of_values[0],
        "runs": [
            {**run, "left_out": value} for value, entry in zip(values, of_values, strict=True) for run in entry["runs"]
        ],
        "summary": {metric: over_values(of) for metric, of in means.items()},
        "versus": _versus_over_all(values, versus) if versus[0] is not None else None,
    }


def _versus_over_all(values: Sequence[int], versus: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The mean differences of two systems over all left-out values, by metric."""
    found = {}
    for metric in versus[0]:
        differences = {value: of[metric]["difference"] for value, of in zip(values, versus, strict=True)}
        defined = None not in differences.values()  # else the mean is not defined either
        found[metric] = paired(differences, dict.fromkeys(values, 0.0)) if defined else dict.fromkeys(PAIRED)
    return found

"""Whether stats.json says what was counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np

from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.fingerprint import changes, file_digests
from lightning_ccn.data.rules import SHOWN
from lightning_ccn.data.writer import Tally


def stale(stored: Dataset, tally: Tally, digests: Mapping[str, str]) -> Iterator[str]:
    """One text per difference between stats.json and what was counted.

    Args:
        stored: The folder as stats.json describes it.
        tally: The counts of its pages.
        digests: The digests of its vocabularies.
    """
    for split, counts in tally.splits.items():
        was = asdict(stored.splits[split])
        differ = {name: value for name, value in asdict(counts).items() if was[name] != value}
        if differ:
            counted = ", ".join(f"{name} {value}" for name, value in differ.items())
            told = ", ".join("nothing" if was[name] is None else str(was[name]) for name in differ)
            yield f"splits.{split}: the split has {counted}, but the file says {told}"
    for name, (mean, deviation) in tally.numbers().items():
        if not np.allclose(stored.numbers[name], (mean, deviation), rtol=1e-4):
            told = " and ".join(f"{value:g}" for value in stored.numbers[name])
            yield f"numbers.{name}: the mean is {mean:g} and the deviation {deviation:g}, but the file says {told}"
    if stored.digests != digests:
        yield "digests differ from those of the files in vocabulary/"
    if stored.files is not None and (changed := changes(stored.files, file_digests(stored.folder, SPLITS))):
        more = f" and {len(changed) - SHOWN:,} more" if len(changed) > SHOWN else ""
        yield f"files: {', '.join(changed[:SHOWN])}{more} since it was written"

"""`ccn data cut`: a dataset folder's copy with shorter long sequences."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_ccn.data.cut import CutCounts, LongCut
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.data.new_folder import NewFolder
from lightning_ccn.data.parquet import parts_of
from lightning_ccn.data.places import on_disk
from lightning_ccn.data.rules import read_items
from lightning_ccn.data.writer import write_stats
from lightning_ccn.errors import DataError, OptionError

WRITTEN = ("schema.yaml", "stats.json")  # of the copy's own; all other files of the folder are copied


@dataclass
class CutReport:
    """What `cut_folder` did; `str` formats it for people.

    Attributes:
        folder: The folder that was written.
        counts: The long behaviours of each split.
        bytes: Size of the parts of all splits, before and after.
    """

    folder: Path
    counts: dict[str, CutCounts]
    bytes: tuple[int, int]

    def __str__(self) -> str:
        lines = [f"{'split':<11}{'long behaviours':>17}{'left':>17}{'pages with any':>17}"]
        for split, count in self.counts.items():
            lines.append(f"{split:<11}{count.before:>17,}{count.after:>17,}{count.pages_with_long:>17,}")
        before, after = (size / 1e6 for size in self.bytes)
        return "\n".join([*lines, f"written to {self.folder}: parts of {after:,.1f} MB, cut from {before:,.1f} MB"])


def cut_folder(folder: str | Path, out: str | Path, *, long_length: int) -> CutReport:
    """Writes a copy of a dataset folder whose long sequences are cut to what a search can ask for.

    Of each page, the copy has the `long_length` most recent long behaviours of each category of its items and of its
    trigger. For every data.long_length up to this, batches are the same to the bit; a larger one is refused. Parts and
    row groups stay as they are, so the order of the pages does, too. Memory: one row group and items.parquet.

    Args:
        folder: Dataset folder to read, with its stats.json.
        out: Dataset folder to write; it must be empty or not exist.
        long_length: The largest data.long_length that the copy is to be read with, 1 or more.

    Returns:
        Numbers of behaviours, and sizes.

    Raises:
        DataError: A folder cannot be read or written, or a value breaks a rule.
        OptionError: `long_length` is less than 1, or more than the folder was cut to itself.
    """
    folder, out = on_disk(folder, "the folder to be cut"), Path(out)
    if long_length < 1:
        raise OptionError(f"long_length is {long_length}: it must be 1 or more")
    if folder.resolve() in (out.resolve(), *out.resolve().parents):
        raise DataError(f"{out}: is in the folder that is read; write to a place outside {folder}")
    dataset = Dataset.open(folder)
    if (cut_to := dataset.schema.cut_long_length) is not None and long_length > cut_to:
        raise OptionError(
            f"long_length is {long_length}, but {folder} is itself cut to {cut_to} (cut_long_length in schema.yaml): "
            f"make it {cut_to} or less, or cut the folder that this one was cut from"
        )
    cut_of = {split: dataset.fingerprint(split) for split in SPLITS}  # refuses files that stats.json does not describe
    schema = replace(dataset.schema, cut_long_length=long_length)
    cut, counts, sizes = LongCut(schema, read_items(dataset)), {split: CutCounts() for split in SPLITS}, [0, 0]
    new = NewFolder(out, "choose another folder")
    try:
        for split in SPLITS:
            (new.part / split).mkdir()
            for path in parts_of(folder / split):
                to = new.part / path.relative_to(folder)
                to.parent.mkdir(parents=True, exist_ok=True)
                counts[split] += cut.part(path, to)
                sizes[0] += path.stat().st_size
                sizes[1] += to.stat().st_size
        _copy_others(folder, new.part)
        (new.part / "schema.yaml").write_text(schema.to_yaml())
        for split, stats in dataset.splits.items():
            stats.pages_with_long = counts[split].pages_with_long
        write_stats(new.part, dataset.splits, dataset.numbers, dataset.digests, cut_of)
        new.finish()
    finally:
        new.discard()
    return CutReport(out, counts, (sizes[0], sizes[1]))


def _copy_others(folder: Path, to: Path) -> None:
    """Copies items, vocabularies, vectors, and what a world or a converter wrote of their work."""
    for path in folder.iterdir():
        if path.is_file() and path.name not in WRITTEN and not path.name.startswith(("_", ".")):
            shutil.copyfile(path, to / path.name)
    for name in ("vocabulary", "vectors"):
        if (folder / name).is_dir():
            shutil.copytree(folder / name, to / name, copy_function=shutil.copyfile)

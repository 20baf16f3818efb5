"""What a checkpoint keeps of the data that its model was trained on, and whether other data fits it.

An id in a dataset folder is a row of a table. So a model is only right for data whose rows mean the same original ids,
and whose numbers are scaled as those that it was trained on.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.fingerprint import file_digests
from lightning_ccn.errors import DataError

log = logging.getLogger(__name__)

TO_RESUME = "Resume with the model and data of the checkpoint, or fine-tune from it: --finetune"
TO_SCORE = (
    "Score with the model of the checkpoint, on data whose rows mean the ids that it was trained on; for larger "
    "vocabularies, fine-tune from it: --finetune"
)
DIGEST = re.compile(r"[0-9a-f]{16,}")
SHOWN = 8  # digits of a digest in a message


def data_identity(dataset: Dataset) -> dict[str, Any]:
    """What `check_same_data` compares, as plain values; a checkpoint keeps it.

    Returns:
        schema: The schema.
        digests: Digest of the vocabulary of each table that has one.
        numbers: Mean and standard deviation of each per-item number.
        files: Digests of items.parquet, of vectors, and of the pages that are trained and validated on.
    """
    return {
        "schema": dataset.schema.to_dict(),
        "digests": dict(dataset.digests),
        "numbers": {name: list(moments) for name, moments in dataset.numbers.items()},
        "files": _files(dataset),
    }


def check_same_data(saved: Mapping[str, Any], dataset: Dataset, resuming: bool = False, system: str = "") -> None:
    """Checks that a checkpoint's model can read a dataset.

    Args:
        saved: What `data_identity` returned, of the data that the model was trained on, and the name of its `system`.
        dataset: The data to read now.
        resuming: The training goes on, which needs the very same data.
        system: The name of the system here; "" does not compare it.

    Raises:
        DataError: Lists every field that differs, and the remedy.
    """
    there = {"schema": saved["schema"], "vocabulary": saved["digests"]}
    here: dict[str, Any] = {"schema": dataset.schema.to_dict(), "vocabulary": dataset.digests}
    if system:
        there, here = {"system": saved["system"], **there}, {"system": system, **here}
    if resuming and "files" in saved:
        there, here = {**there, "files": saved["files"]}, {**here, "files": _files(dataset)}
    if found := differences(there, here):
        what, remedy = ("run", TO_RESUME) if resuming else ("model or these data", TO_SCORE)
        raise DataError(f"the checkpoint does not fit this {what} (checkpoint -> here): {'; '.join(found)}. {remedy}")
    check_same_ids(saved, dataset)


def check_same_ids(saved: Mapping[str, Any], dataset: Dataset) -> None:
    """Checks that nothing but the user's word is needed for tables without a vocabulary.

    Raises:
        DataError: The folder is another than the checkpoint's, a table has no vocabulary, and the user does not vouch
            for it.
    """
    tables = [name for name in dataset.tables_without_ids if name in saved["schema"]["tables"]]
    if not tables or dataset.same_ids:
        return
    if "files" not in saved:
        log.warning(
            "the checkpoint is of an older version, which did not save what its data was: nothing shows that rows of "
            f"table {', '.join(tables)} mean the same ids in {dataset.folder}"
        )
    elif not trained_on(saved, dataset):
        missing = ", ".join(f"vocabulary/{name}.parquet" for name in tables)
        raise DataError(
            f"{dataset.folder} is not the data that the checkpoint was trained on, and has no {missing}: nothing shows "
            "that the rows of its tables mean the same ids; write the original ids there (column id, for rows 1, 2, "
            "...), or vouch for them with --data.same_ids true"
        )


def trained_on(saved: Mapping[str, Any], dataset: Dataset) -> bool:
    """Whether a dataset is the one that the checkpoint was trained on; also if an older checkpoint does not say."""
    return "files" not in saved or saved["files"] == _files(dataset)


def saved_numbers(saved: Mapping[str, Any], dataset: Dataset) -> dict[str, tuple[float, float]]:
    """The moments by which the checkpoint's model scales the numbers that the dataset has too."""
    numbers = saved.get("numbers", {})
    return {name: (mean, std) for name, (mean, std) in numbers.items() if name in dataset.numbers}


def _files(dataset: Dataset) -> dict[str, str]:
    of_items = file_digests(dataset.folder, ()).items()
    return {
        **{name: digest for name, digest in of_items if name.startswith(("items.parquet", "vectors/"))},
        **{f"{split}/": dataset.fingerprint(split) for split in ("train", "validation")},
    }


def differences(saved: Any, here: Any, path: str = "") -> list[str]:
    """The fields in which two nested plain values differ, as `path: saved -> here`.

    >>> differences({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}})
    ['a.c: 2 -> 3']
    """
    if isinstance(saved, dict) and isinstance(here, dict):
        names = [*saved, *(name for name in here if name not in saved)]
        return [
            line
            for name in names
            for line in differences(saved.get(name), here.get(name), f"{path}.{name}" if path else str(name))
        ]
    return [] if saved == here else [f"{path}: {_short(saved)} -> {_short(here)}"]


def _short(value: Any) -> Any:
    return value[:SHOWN] if isinstance(value, str) and DIGEST.fullmatch(value) else value

"""What a comparison knows of its systems and settings before it trains: all that can be wrong is found here."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.errors import DataError, OptionError
from lightning_ccn.sharding import find_tables
from lightning_ccn.studies.comparison.protocol import Rates
from lightning_ccn.studies.comparison.search import LEARNING_RATES, Settings
from lightning_ccn.studies.comparison.study import Entry, Study
from lightning_ccn.training.display import Display
from lightning_ccn.training.preflight import Preflight


def read_settings(folder: Path, systems: Sequence[str]) -> dict[str, Settings]:
    """The settings that a finished comparison has chosen, by system.

    Args:
        folder: Folder of that comparison.
        systems: The systems whose settings are wanted.

    Raises:
        OptionError: It is not finished, lacks a system, or is one of an older release.
    """
    file = folder / "compare.json"
    try:
        found = {system["name"]: system.get("settings") for system in json.loads(file.read_text())["systems"]}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OptionError(
            f"--settings_from {folder}: {file} cannot be read ({error}): give the folder of a finished comparison"
        ) from None
    for system in systems:
        if system not in found:
            raise OptionError(f"--settings_from {folder}: has no {system}; its systems are {', '.join(found)}")
        rates = found[system].get(LEARNING_RATES, 1) if isinstance(found[system], dict) else None
        if not isinstance(rates, int | float) or not rates > 0:
            raise OptionError(
                f"--settings_from {folder}: {file} has no settings of {system} (an older release wrote none): compare "
                "anew, or leave the option out"
            )
    return {system: found[system] for system in systems}


def read_entry(args: Sequence[str], source: str) -> tuple[Entry, Dataset]:
    """A system as the options of `ccn fit` describe it, and the dataset. Nothing is trained.

    Args:
        args: The options.
        source: Where they come from, for the message of an error.

    Raises:
        DataError, OptionError, ShardingError: The system cannot run on the data with these options.
    """
    try:
        preflight = Preflight(["fit", *args])
        preflight.check_data(1)
    except OptionError as error:
        raise OptionError(f"{source}: {error}") from None
    except SystemExit:  # the parser has printed the error
        print(f"ccn: this error is in {source}", file=sys.stderr)
        raise
    dataset: Dataset = preflight.datamodule.dataset
    system = preflight.model.new_system()
    tables = sum(table.rows * table.dim for table in find_tables(system))
    try:
        head = preflight.model.new_order_head(system)
    except OptionError as error:
        raise OptionError(f"{source}: {error}") from None
    layers = [*system.parameters(), *(head.parameters() if head is not None else [])]
    dense = sum(parameter.numel() for parameter in layers) - tables
    display = Display(**preflight.options.display.as_dict())
    return Entry(display, Rates(preflight.model.lr, preflight.strategy.table_lr), tables, dense), dataset


def read_tried(args: Sequence[str], source: str) -> Entry:
    """A system that was read before, with other settings; what it warns of has been said. See `read_entry`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_entry(args, source)[0]


def count_chosen_parameters(study: Study, shared: Sequence[str]) -> None:
    """Counts the parameters of each system with the settings that its reported runs use: a trial may change widths."""
    for system, entry in study.entries.items():
        if settings := study.settings(system):
            of_system = [*shared, "--config", str(study.cells.configs[system])]
            found = read_tried([*of_system, *entry.rates.with_settings(settings)], f"the settings of {system}")
            study.entries[system] = replace(
                entry, table_parameters=found.table_parameters, dense_parameters=found.dense_parameters
            )


def refuse_no_labels(dataset: Dataset) -> None:
    """Checks that trials can be judged on the validation split.

    Raises:
        DataError: Its labels are all equal, or it is empty.
    """
    validation = dataset.splits["validation"]
    if validation.clicks in (0, validation.items):
        raise DataError(
            f"{dataset.folder / 'validation'}: {validation.clicks:,} of {validation.items:,} items are clicked, so no "
            "trial has an AUC to be chosen by; repair the data, or search nothing with --trials 1"
        )

"""An earlier simulation in the same folder: it may be repeated or extended, and is never lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_ccn.errors import DataError
from lightning_ccn.studies.simulation.ranking import Ranking

FILE = "simulate.json"
Entry = tuple[str, float | None, frozenset[Path]]  # a ranked system, the share of a mix, and the run folders


def entries(systems: Mapping[str, Sequence[Path]], rankings: Sequence[Ranking]) -> set[Entry]:
    """The entries of trained systems in simulate.json.

    Args:
        systems: The run folders of each.
        rankings: The ways in which each is ranked.
    """
    return {
        _entry(ranking.key(name), ranking.by, ranking.click_share, folders)
        for name, folders in systems.items()
        for ranking in rankings
    }


def refuse_another(folder: Path, visits: Mapping[str, Any], wanted: set[Entry], baseline: str) -> None:
    """Checks that what a folder has of an earlier simulation is part of what will be written.

    Args:
        folder: Folder of simulate.json, which may have none.
        visits: What the visits are drawn from, by its names in simulate.json.
        wanted: What will be written, see `entries`.
        baseline: The entry over which lifts will be reported.

    Raises:
        DataError: It is not, or the file cannot be read.
    """
    file = folder / FILE
    if not file.exists():
        return
    remedy = "give another --output, or delete that file"
    try:
        found = json.loads(file.read_text())
        trained = [one for one in found["systems"] if _folders(one)]
        there = {_entry(one["name"], **_ranked(one), folders=_folders(one)) for one in trained}
        before, now = _flat(found), _flat(json.loads(json.dumps(visits)))
        over = found.get("baseline", {}).get("name", baseline)
        lost = [f"{name} {before[name]}, not {now[name]}" for name in now if before.get(name, now[name]) != now[name]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: cannot be read as the results of a simulation ({error!r}): {remedy}") from None
    lost = lost or sorted(f"{name} of other runs, or ranked otherwise" for name, *_ in there - wanted)
    if over != baseline:
        lost.append(f"lifts over {over}, not {baseline}")
    if lost:
        raise DataError(f"{file}: has another simulation, which would be lost ({'; '.join(lost[:3])}): {remedy}")


def _flat(report: Mapping[str, Any]) -> dict[str, Any]:
    """What the visits are drawn from, with the world's knobs one by one: a later version may have more of them."""
    rest = {name: report[name] for name in ("visits", "candidates", "seed")}
    return {**{f"world {knob}": value for knob, value in report["world"].items()}, **rest}


def _folders(entry: Mapping[str, Any]) -> list[str]:
    return [run["folder"] for run in entry["runs"]]


def _ranked(entry: Mapping[str, Any]) -> dict[str, Any]:
    """How a system was ranked; files of older versions do not say it, and have rankings by clicks alone."""
    return entry.get("ranked") or {"by": "click", "click_share": 0.5}


def _entry(name: str, by: str, click_share: float, folders: Sequence[str | Path]) -> Entry:
    return name, click_share if by == "mix" else None, frozenset(Path(folder).resolve() for folder in folders)

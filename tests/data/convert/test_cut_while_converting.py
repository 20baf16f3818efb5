"""Converters that cut long sequences while they write: they learn the items' categories after the last page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.convert.ebnerd import convert_ebnerd
from lightning_ccn.data.convert.mind import convert_mind
from lightning_ccn.data.cut_folder import cut_folder
from lightning_ccn.data.dataset import SPLITS, Dataset
from lightning_ccn.errors import DataError
from tests.data.convert import test_ebnerd, test_mind

SHARES: dict[str, Any] = {"validation": 0.25, "test": 0.25}


def mind_log(folder: Path) -> Callable[..., object]:
    lines = []
    for n in range(1, 40):
        history = " ".join(f"N{n * k % 9}" for k in range(9))
        lines.append(f"{n}\tU{n % 5}\t11/11/2019 {1 + n % 12}:00:00 PM\t{history}\tN1-{n % 2} N7-0")
    log = test_mind.write_log(folder, lines, [(f"N{n}", f"topic {n % 3}", "all") for n in range(8)])  # N8 has none
    return lambda out, **options: convert_mind(log, out, **SHARES, **options)


def ebnerd_log(folder: Path) -> Callable[..., object]:
    log = [(n, n % 3, n, 100, 60 * n, [1, 2 + n % 2, 4], [1]) for n in range(1, 40)]
    history = {user: [(1 + (user + k) % 4, -1000 + k) for k in range(9)] for user in range(3)}
    test_ebnerd.write_log(folder, log, history)
    test_ebnerd.write_articles(folder)
    return lambda out, **options: convert_ebnerd(folder, out, **SHARES, **options)


@pytest.mark.parametrize("log", [mind_log, ebnerd_log])
def test_it_writes_what_a_cut_of_its_folder_writes(
    log: Callable[[Path], Callable[..., object]], tmp_path: Path
) -> None:
    convert = log(tmp_path / "log")
    convert(tmp_path / "whole")
    convert(tmp_path / "once", cut_long_length=1)
    cut_folder(tmp_path / "whole", tmp_path / "cut", long_length=1)
    whole, once, cut = (Dataset.open(tmp_path / name) for name in ("whole", "once", "cut"))
    assert once.schema.to_yaml() == cut.schema.to_yaml() != whole.schema.to_yaml()
    assert once.splits == cut.splits
    for split in SPLITS:
        left, right, full = (pq.read_table(d.folder / split) for d in (once, cut, whole))
        assert left.schema == right.schema
        assert repr(left.to_pydict()) == repr(right.to_pydict())  # where an unknown age equals another
        assert sum(map(len, left["long_items"].to_pylist())) < sum(map(len, full["long_items"].to_pylist()))
        assert left["short_items"].equals(full["short_items"])
    assert check(tmp_path / "once").errors == []
    assert json.loads((tmp_path / "once" / "report.json").read_text())["options"]["cut_long_length"] == 1


@pytest.mark.parametrize("log", [mind_log, ebnerd_log])
def test_a_number_that_cannot_be_is_refused_before_the_log_is_read(
    log: Callable[[Path], Callable[..., object]], tmp_path: Path
) -> None:
    convert = log(tmp_path / "log")
    with pytest.raises(DataError, match=r"^schema: cut_long_length is 0: it must be from 1 to"):
        convert(tmp_path / "out", cut_long_length=0)
    assert [path.name for path in tmp_path.iterdir()] == ["log"]

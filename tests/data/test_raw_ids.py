"""The ids of the log, of rows of tables; a folder that does not have them says so."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.raw_ids import RawIds
from lightning_ccn.data.vocabulary import Vocabulary
from lightning_ccn.errors import DataError
from tests.data.stats import accept_changes

Make = Callable[..., Path]


def test_rows_become_the_ids_of_the_log_and_row_0_none(dataset: Path) -> None:
    raw = RawIds(Dataset.open(dataset))
    assert raw.user == "user"
    assert raw.of("item", np.array([3, 0, 60])).to_pylist() == [1002, None, 1059]
    assert raw.of("user", np.zeros(0, np.int64)).to_pylist() == []
    assert raw.type("user") == pa.int64()


def test_a_log_without_users_has_ids_of_items(make_dataset: Make) -> None:
    folder = make_dataset()
    schema = folder / "schema.yaml"
    schema.write_text(re.sub(r"- name: user\n  table: user", "- name: user\n  table: city", schema.read_text()))
    raw = RawIds(Dataset.open(folder))
    assert raw.user is None
    assert raw.of("item", np.array([1])).to_pylist() == [1000]


def test_the_id_of_the_user_is_a_feature_with_one_value(make_dataset: Make) -> None:
    folder = make_dataset()
    schema = folder / "schema.yaml"
    friends = "user:\n- name: friends\n  table: user\n  many: true\n- name: user\n"
    schema.write_text(schema.read_text().replace("user:\n- name: user\n", friends))
    assert RawIds(Dataset.open(folder)).user == "user"


def test_a_table_without_a_vocabulary_is_named_with_the_remedy(make_dataset: Make) -> None:
    folder = make_dataset()
    (folder / "vocabulary" / "item.parquet").unlink()
    stats = folder / "stats.json"
    stats.write_text(re.sub(r'"item": "\w+",', "", stats.read_text()))
    accept_changes(folder)
    with pytest.raises(DataError) as caught:
        RawIds(Dataset.open(folder))
    assert str(caught.value) == (
        f"{folder}: there is no vocabulary/item.parquet, so nothing says which id of the log a row of table 'item' is: "
        f"write the ids there (column id, for rows 1, 2, ...) and run `ccn data check {folder} --write_stats true`, or "
        "write rows with --ids rows"
    )


def test_a_hashed_table_has_no_ids_of_the_log(make_dataset: Make) -> None:
    folder = make_dataset(mapping="hash")
    with pytest.raises(DataError, match=rf"^{folder}: the rows of table 'user' are hashes .* --ids rows$"):
        RawIds(Dataset.open(folder))


def test_a_vocabulary_of_other_rows_than_its_table_is_refused(make_dataset: Make) -> None:
    folder = make_dataset()
    path = folder / "vocabulary" / "item.parquet"
    Vocabulary(pa.array(["a", "b"])).save(path)
    accept_changes(folder)
    with pytest.raises(DataError) as caught:
        RawIds(Dataset.open(folder)).of("item", np.array([1]))
    assert str(caught.value) == (
        f"{path}: 2 ids make 3 rows with row 0, but tables.item.rows in schema.yaml is 61; write one id for each row "
        "after row 0"
    )


def test_a_table_without_any_id_has_none(make_dataset: Make) -> None:
    folder = make_dataset(users=1)
    Vocabulary().save(folder / "vocabulary" / "user.parquet")
    accept_changes(folder)
    assert RawIds(Dataset.open(folder)).of("user", np.array([0, 1])).to_pylist() == [None, None]

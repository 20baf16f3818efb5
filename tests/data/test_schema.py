"""Errors in schemas and folders are reported with their file, field and remedy."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lightning_ccn.data.check.check import check
from lightning_ccn.data.dataset import Dataset
from lightning_ccn.data.schema import Feature, Schema, Table, read_schema
from lightning_ccn.errors import DataError
from lightning_ccn.nn.tables import UserTables

PLAIN = {
    "tables": {"item": {"rows": 10}, "user": {"rows": 20, "mapping": "hash"}, "category": {"rows": 5}},
    "user": [{"name": "user", "table": "user"}, {"name": "likes", "table": "category", "many": True}],
    "attributes": [{"name": "category", "table": "category"}],
    "numbers": ["price"],
    "category": "category",
}


def test_a_schema_survives_yaml(tmp_path: Path) -> None:
    schema = Schema.from_dict(PLAIN)
    (tmp_path / "schema.yaml").write_text(yaml.safe_dump(schema.to_dict()))
    assert read_schema(tmp_path) == schema
    assert schema.tables["item"] == Table(10, "dense")
    assert schema.user[1] == Feature("likes", "category", many=True)


def test_the_item_id_is_the_first_item_feature() -> None:
    assert [feature.name for feature in Schema.from_dict(PLAIN).item] == ["item", "category"]


def test_attributes_numbers_and_category_may_be_left_out() -> None:
    schema = Schema.from_dict({"tables": {"item": {"rows": 2}}, "user": []})
    assert (schema.attributes, schema.numbers, schema.category) == ((), (), None)


def test_the_mark_of_a_cut_folder_is_in_its_schema_file_and_makes_no_other_schema(tmp_path: Path) -> None:
    whole = Schema.from_dict(PLAIN)
    cut = Schema.from_dict({**PLAIN, "cut_long_length": 50})
    assert (cut.cut_long_length, whole.cut_long_length) == (50, None)
    for schema in (cut, whole):
        (tmp_path / "schema.yaml").write_text(schema.to_yaml())
        assert read_schema(tmp_path).cut_long_length == schema.cut_long_length
    assert cut == whole
    assert cut.to_dict() == whole.to_dict()  # what a checkpoint keeps and compares
    assert "cut_long_length" not in whole.to_yaml()  # an older version reads it


def with_(field: str, value: object) -> dict:
    """`PLAIN` with one field replaced: `tables.item.rows`, `user.0.table`; None removes it."""
    changed = json.loads(json.dumps(PLAIN))
    *path, last = field.split(".")
    place = changed
    for name in path:
        place = place[int(name)] if isinstance(place, list) else place[name]
    key = int(last) if isinstance(place, list) else last
    place[key] = value
    if value is None:
        del place[key]
    return changed


def test_attributes_with_many_values_are_compared_with_no_trigger() -> None:
    attributes = [*PLAIN["attributes"], {"name": "tags", "table": "category", "many": True}]
    with pytest.raises(DataError, match="same_as_trigger: 'tags' is a list, and targets are compared with triggers in"):
        Schema.from_dict({**PLAIN, "attributes": attributes, "same_as_trigger": ["category", "tags"]})
    assert [f.many for f in Schema.from_dict({**PLAIN, "attributes": attributes}).item] == [False, False, True]


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        # the contents of the file
        ("tables", None, "tables: missing; a schema needs tables and user"),
        ("user", None, "user: missing; a schema needs tables and user"),
        ("tables", ["item"], "tables: ['item'] is not a mapping"),
        ("attributes", "category", "attributes: 'category' is not a list"),
        ("atributes", [], "atributes: no such field; the fields are tables, user, attributes, numbers, page_numbers"),
        ("page_numbers", ["price"], "the name 'price' is used twice: names must differ"),
        ("page_numbers", ["time"], "the name 'time' is a column of every page row: choose another"),
        ("same_as_trigger", ["brand"], "same_as_trigger: 'brand' is no item feature; the features are item, category"),
        ("same_as_trigger", ["item", "item"], "same_as_trigger: a feature is named twice: name each once"),
        ("ratio_to_trigger", ["category"], "ratio_to_trigger: the name 'category' is used twice in items.parquet"),
        ("vectors", {"image": "wide"}, "vectors.image: 'wide' is not a whole number"),
        ("vectors", {"image": 0}, "vectors.image is 0: the width must be from 1 to 65536"),
        ("vectors", {"keys": 8}, "the name 'keys' of a vector is taken by PyTorch: choose another, such as 'keys_id'"),
        ("vectors", ["image"], "vectors: ['image'] is not a mapping"),
        ("tables.item", 10, "tables.item: 10 is not a mapping of rows, mapping"),
        ("tables.item.rows", None, "tables.item.rows: missing"),
        ("tables.item.rows", "many", "tables.item.rows: 'many' is not of type int"),
        ("tables.item.dim", 16, "tables.item.dim: no such field; the fields are rows, mapping"),
        ("user.0", "user", "user.0: 'user' is not a mapping of name, table, many"),
        ("user.1.many", "yes", "user.1.many: 'yes' is not of type bool"),
        ("attributes.0.table", None, "attributes.0.table: missing"),
        # what it means
        ("tables.item", None, "tables has no 'item': every dataset needs the item table"),
        ("tables.item.rows", 1, "table 'item' has 1 rows: row 0 is the unknown id, so it needs at least 2"),
        ("tables.user.mapping", "sparse", "table 'user' has mapping 'sparse': choose dense or hash"),
        ("user.0.table", "users", "feature 'user' names table 'users', which is not in tables"),
        ("user.0.name", "category", "the name 'category' is used twice: names must differ"),
        ("user.0.name", "item", "the name 'item' is used twice: names must differ"),
        ("user.0.name", "clicks", "the name 'clicks' is a column of every page row: choose another"),
        ("numbers.0", "click_probability", "the name 'click_probability' is a column of every page row"),
        ("attributes.0.many", True, "category is 'category', which is a list: the long sequence is searched by an"),
        ("category", "brand", "category is 'brand', which is not an item attribute"),
        ("category", "likes", "category is 'likes', which is not an item attribute"),
        ("category", ["category"], "category: ['category'] is not the name of an item attribute"),
        ("numbers.0", "price in $", "the name 'price in $' of a column: choose letters, digits, _ and -, 1 to 100"),
        ("tables.item.rows", 2**31, "table 'item' has 2147483648 rows: 2147483647 is the most"),
        ("cut_long_length", 0, "cut_long_length is 0: it must be from 1 to 2147483647"),
        ("cut_long_length", 2**31, "cut_long_length is 2147483648: it must be from 1 to 2147483647"),
        ("cut_long_length", True, "cut_long_length: True is not a whole number"),
        ("cut_long_length", "50", "cut_long_length: '50' is not a whole number"),
        ("tables.user.rows", 10**30, f"table 'user' has {10**30} rows: {2**40 + 1} is the most"),
    ],
)
def test_a_bad_schema_is_rejected_by_file_and_field(tmp_path: Path, field: str, value: object, expected: str) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(yaml.safe_dump(with_(field, value)))
    with pytest.raises(DataError, match=rf"^{re.escape(str(path))}: (schema: )?{re.escape(expected)}"):
        read_schema(tmp_path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("user.id", "the name 'user.id' of a table: choose letters, digits, _ and -, 1 to 100 of them"),
        ("", "the name '' of a table: choose letters"),
        ("../x", "the name '../x' of a table: choose letters"),
        ("x" * 101, f"the name '{'x' * 101}' of a table: choose letters"),
        ("type", "the name 'type' of a table is taken by PyTorch: choose another, such as 'type_id'"),
        ("keys", "the name 'keys' of a table is taken by PyTorch"),
        ("user_category", "the name 'user_category' of a table is that of the users' own rows of 'category'"),
    ],
)
def test_the_name_of_a_table_must_be_one_that_the_model_can_use(name: str, expected: str) -> None:
    plain = json.loads(json.dumps(PLAIN))
    plain["tables"][name] = {"rows": 5}
    plain["user"].append({"name": "more", "table": name})
    with pytest.raises(DataError, match=re.escape(expected)):
        Schema.from_dict(plain)


@pytest.mark.parametrize("name", ["user-id", "类目", "Größe", "user_item"])
def test_names_may_be_in_any_alphabet(name: str) -> None:
    plain = json.loads(json.dumps(PLAIN))
    plain["tables"][name] = {"rows": 5}
    plain["user"].append({"name": name, "table": name})
    assert name in UserTables(Schema.from_dict(plain), dim=4).tables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tables: [", "not YAML: while parsing"),
        ("made: 2024-13-45", "not YAML: month must be in 1..12"),
        ("[" * 5000, "not YAML: maximum recursion depth exceeded"),
        ("", "expected a mapping with tables and user, got NoneType"),
        ("- item", "expected a mapping with tables and user, got list"),
    ],
)
def test_a_schema_that_is_no_mapping_is_rejected_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "schema.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=re.escape(f"{path}: {expected}")) as error:
        read_schema(tmp_path)
    assert "\n" not in str(error.value)


def test_clicked_and_unclicked_items_of_a_page_come_from_the_training_split(dataset: Path) -> None:
    opened = Dataset.open(dataset)
    train = opened.splits["train"]
    assert opened.clicked_per_page == train.clicks / train.pages == pytest.approx(55 / 96)
    assert opened.clicked_per_page + opened.unclicked_per_page == pytest.approx(train.items / train.pages)


def test_opening_no_folder_or_half_a_folder_names_what_is_missing(
    tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder; data\.folder names a dataset folder"):
        Dataset.open(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: schema\.yaml is missing, so this dataset folder is incomplete"):
        Dataset.open(tmp_path / "empty")
    folder = make_dataset()
    for name in ("items.parquet", "stats.json"):
        (folder / name).rename(tmp_path / name)
        with pytest.raises(DataError, match=re.escape(f"{folder}: {name} is missing")):
            Dataset.open(folder)
        (tmp_path / name).rename(folder / name)
    Dataset.open(folder)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda stats: stats.pop("numbers"), "numbers: missing"),
        (lambda stats: stats["splits"].pop("train"), r"splits\.train\.pages: missing"),
        (lambda stats: stats["splits"]["train"].update(users=3), r"splits\.train\.users: no such count"),
        (lambda stats: stats["splits"]["train"].update(pages="9"), r"splits\.train\.pages: '9' is not a count"),
        (lambda stats: stats["numbers"].pop("price"), r"numbers\.price: missing, but schema\.yaml has it"),
        (lambda stats: stats["numbers"].update(price=["a", 1]), "could not convert string to float"),
    ],
)
def test_bad_stats_are_rejected_with_the_command_that_fixes_them(
    make_dataset: Callable[..., Path], change: Callable[[dict], object], expected: str
) -> None:
    folder = make_dataset(numbers=("price",))
    path = folder / "stats.json"
    stats = json.loads(path.read_text())
    change(stats)
    path.write_text(json.dumps(stats))
    with pytest.raises(DataError, match=rf"stats\.json: .*{expected}.*; `ccn data check .* --write_stats true` writes"):
        Dataset.open(folder)


def test_counts_that_an_older_version_did_not_write_are_unknown(make_dataset: Callable[..., Path]) -> None:
    folder = make_dataset()
    path = folder / "stats.json"
    stats = json.loads(path.read_text())
    stats["splits"] = {
        split: {name: count for name, count in counts.items() if not name.startswith("pages_")}
        for split, counts in stats["splits"].items()
    }
    path.write_text(json.dumps(stats))
    train = Dataset.open(folder).splits["train"]
    assert (train.pages, train.pages_with_trigger, train.missing_inputs) == (96, None, {})
    (error, *_) = check(folder).errors
    assert "splits.train: the split has pages_with_trigger 9" in error
    assert "the file says nothing, nothing" in error
    assert "--write_stats true` writes it" in error
    assert check(folder, write_stats=True).errors == []
    assert Dataset.open(folder).splits["train"].pages_with_trigger is not None

"""What is inconsistent in a schema."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from torch import nn

from lightning_ccn.data.page_row import ITEM, RESERVED

if TYPE_CHECKING:
    from lightning_ccn.data.schema import Schema

NAME = re.compile(r"[\w-]{1,100}")  # a name becomes part of a file name, of a parameter's path and of a column's path
MOST_ROWS = {ITEM: 2**31 - 1}  # items.parquet is kept as int32
MOST_ROWS_ELSEWHERE = 2**40 + 1
MOST_POSITIONS = 100_000
WIDEST = 65_536  # values of a vector


def problems(schema: Schema) -> list[str]:
    """One sentence per inconsistency of a schema."""
    found = []
    if ITEM not in schema.tables:
        found.append(f"tables has no '{ITEM}': every dataset needs the item table")
    names = [f.name for f in (*schema.user, *schema.item)] + [*schema.numbers, *schema.page_numbers]
    names += [*([schema.weight] if schema.weight is not None else []), *schema.vectors]
    for kind, given in (("table", [*schema.tables]), ("column", names)):
        found += [
            f"the name {name!r} of a {kind}: choose letters, digits, _ and -, 1 to 100 of them"
            for name in given
            if not NAME.fullmatch(name)
        ]
    # tables and vectors are in a ModuleDict, whose own attributes (keys, type, training, ...) cannot be keys
    taken = dict.fromkeys(schema.tables, "table") | dict.fromkeys(schema.vectors, "vector")
    of_items = {f.table for f in schema.item}
    for name in sorted({f.table for f in schema.user} & of_items):  # users have rows of their own, see `UserTables`
        if (own := f"user_{name}") in {f.table for f in (*schema.user, *schema.attributes)}:
            found.append(f"the name '{own}' of a table is that of the users' own rows of '{name}': choose another")
    found += [
        f"the name '{name}' of a {kind} is taken by PyTorch: choose another, such as '{name}_id'"
        for name, kind in taken.items()
        if hasattr(nn.ModuleDict(), name)
    ]
    found += [f"the name '{n}' is used twice: names must differ" for n in sorted(set(names)) if names.count(n) > 1]
    found += [f"the name '{n}' is a column of every page row: choose another" for n in names if n in RESERVED]
    known = [feature.name for feature in schema.item]
    found += [
        f"same_as_trigger: {name!r} is no item feature; the features are {', '.join(known)}"
        for name in schema.same_as_trigger
        if name not in known
    ]
    if len(set(schema.same_as_trigger)) < len(schema.same_as_trigger):
        found.append("same_as_trigger: a feature is named twice: name each once")
    columns = [*known, *schema.ratio_to_trigger]
    found += [
        f"ratio_to_trigger: the name {name!r} is used twice in items.parquet, or is no name; choose another"
        for name in schema.ratio_to_trigger
        if columns.count(name) > 1 or not NAME.fullmatch(name)
    ]
    for feature in (*schema.user, *schema.attributes):
        if feature.table not in schema.tables:
            found.append(f"feature '{feature.name}' names table '{feature.table}', which is not in tables")
    many = {f.name for f in schema.attributes if f.many}
    found += [
        f"same_as_trigger: '{name}' is a list, and targets are compared with triggers in features with one value"
        for name in schema.same_as_trigger
        if name in many
    ]
    if schema.category in many:
        found.append(
            f"category is '{schema.category}', which is a list: the long sequence is searched by an attribute with "
            "one value; write the main one as an attribute of its own"
        )
    for name, table in schema.tables.items():
        if table.rows < 2:
            found.append(f"table '{name}' has {table.rows} rows: row 0 is the unknown id, so it needs at least 2")
        if table.rows > (most := MOST_ROWS.get(name, MOST_ROWS_ELSEWHERE)):
            found.append(f"table '{name}' has {table.rows} rows: {most} is the most")
        if table.mapping not in ("dense", "hash"):
            found.append(f"table '{name}' has mapping '{table.mapping}': choose dense or hash")
    if schema.category is not None and schema.category not in {f.name for f in schema.attributes}:
        found.append(f"category is '{schema.category}', which is not an item attribute")
    if schema.position_bias is not None and not 1 <= schema.position_bias <= MOST_POSITIONS:
        found.append(f"position_bias is {schema.position_bias}: it must be from 1 to {MOST_POSITIONS}")
    found += [
        f"vectors.{name} is {width}: the width must be from 1 to {WIDEST}"
        for name, width in schema.vectors.items()
        if not 1 <= width <= WIDEST
    ]
    if schema.cut_long_length is not None and not 1 <= schema.cut_long_length < 2**31:
        found.append(f"cut_long_length is {schema.cut_long_length}: it must be from 1 to {2**31 - 1}")
    return found

"""The hard search, against a search page by page in plain Python."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_ccn.data import search
from lightning_ccn.data.ragged import Ragged
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.data.search import HardSearch

ITEMS, CATEGORIES, PAGES = 50, 6, 40
SCHEMA = Schema(
    tables={"item": Table(ITEMS), "kind": Table(CATEGORIES)},
    user=(),
    attributes=(Feature("category", "kind"),),
    category="category",
)


def lists(rng: np.random.Generator, most: int) -> Ragged:
    lengths = rng.integers(0, most + 1, PAGES)
    return Ragged.from_lengths(rng.integers(0, ITEMS, lengths.sum()), lengths)


@pytest.mark.parametrize("with_table", [True, False])
@pytest.mark.parametrize("schema", [SCHEMA, Schema(SCHEMA.tables, (), SCHEMA.attributes)], ids=["category", "none"])
@pytest.mark.parametrize("most", [1, 3, 1_000])
def test_it_finds_what_a_search_page_by_page_finds(
    schema: Schema, most: int, with_table: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST_PAIRS", 1 << 22 if with_table else 0)
    rng = np.random.default_rng(most)
    long, exposed, trigger = lists(rng, 60), lists(rng, 7), rng.integers(0, ITEMS, PAGES)
    of_item = rng.integers(0, CATEGORIES, ITEMS)
    of_item[0] = 0
    category = of_item if schema.category else np.ones(ITEMS, np.int64)
    target_page = np.repeat(np.arange(PAGES), exposed.lengths)
    found = HardSearch.of_schema(schema, {"category": of_item})(long, exposed.values, target_page, trigger, most)

    ends = np.cumsum(found.lengths)
    groups = [found.place[end - length : end].tolist() for end, length in zip(ends, found.lengths, strict=True)]

    def expected(page: int, item: int) -> list[int]:
        here = range(long.offsets[page], long.offsets[page + 1])
        return [at for at in here if category[long.values[at]] == category[item] != 0][-most:]

    assert max(map(len, groups)) >= min(most, 5)  # or the limit would show nothing
    for page, item, group in zip(*(a.tolist() for a in (target_page, exposed.values, found.target_group)), strict=True):
        assert groups[group] == expected(page, item)
    for page in range(PAGES):
        assert groups[found.trigger_group[page]] == expected(page, int(trigger[page]))
    pairs = {(int(p), int(category[i])) for p, i in zip(target_page, exposed.values, strict=True)}
    pairs |= {(page, int(category[trigger[page]])) for page in range(PAGES)}
    assert len(groups) == len(pairs)  # a category that two items of a page share is one group


def test_a_search_of_no_pages_finds_nothing() -> None:
    nothing = np.zeros(0, np.int64)
    none = Ragged.from_lengths(nothing, nothing)
    found = HardSearch.of_schema(SCHEMA, {"category": np.zeros(ITEMS, np.int64)})(none, nothing, nothing, nothing, 5)
    assert (found.place.size, found.lengths.size) == (0, 0)

"""Whatever a small log holds, and in whatever order: the folder is what a plain program says, and nothing is lost."""

from __future__ import annotations

import random
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from lightning_ccn.data.build.build_report import BuildReport
from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    EVENTS,
    EXPOSURES,
    NOON,
    Row,
    build,
    contents,
    event,
    exposure,
    read_pages,
    write_rows,
    write_spec,
)

TYPES = {"view": pa.string(), "user": pa.string(), "item": pa.string(), "entry": pa.string(), "clicked": pa.int64()}
SHORT, LONG, DAYS, WITHIN = 2, 4, 1, 50
ids = st.sampled_from(["a", "b", "é", "日本", "a", "b", "", None])
times = st.integers(NOON, NOON + 9).map(lambda second: second if second % 4 else second + 86_400)
exposures = st.lists(
    st.builds(
        exposure,
        view=st.sampled_from(["v1", "v2", "v3", "v1", "v2", None]),
        user=st.sampled_from(["u", "u", "u", "ü", None]),
        item=ids,
        time=times,
        clicked=st.sampled_from([0, 1, 0, 1, 0, 1, 2, None]),
        entry=st.sampled_from(["a", "a", "a", "b", None]),
        slot=st.integers(0, 2),
    ),
    min_size=6,
    max_size=25,
)
events = st.lists(
    st.builds(
        event,
        user=st.sampled_from(["u", "u", "ü", "w"]),
        item=ids,
        time=times,
        type=st.sampled_from(["click", "order"]),
    ),
    min_size=6,
    max_size=25,
)


def expected(exposures: list[Row], events: list[Row]) -> list[Row]:
    """What a plain program makes of a log, page by page in order of time."""
    usable = [r for r in exposures if r["view"] and r["user"] and r["item"] and r["clicked"] in (0, 1)]
    # the stated order: time, position, item, user, trigger (nulls last), click first
    usable.sort(
        key=lambda r: (r["time"], r["slot"], r["item"].encode(), r["user"].encode(), r["entry"] is None, -r["clicked"])
    )
    pages: dict[str, list[Row]] = {}
    for row in usable:
        page = pages.setdefault(row["view"], [])
        if not page or row["user"] == page[0]["user"]:
            page.append(row)
    triggers = {view: next((row["entry"] for row in page if row["entry"]), None) for view, page in pages.items()}
    pages = {view: [row for row in page if row["entry"] in (None, triggers[view])] for view, page in pages.items()}
    told = [e for e in events if e["item"]]
    told.sort(key=lambda e: (e["time"], e["item"].encode(), e["type"]))
    found = []
    for view, rows in sorted(pages.items(), key=lambda each: (each[1][0]["time"], each[0])):
        first: dict[str, Row] = {}
        for row in rows:
            first.setdefault(row["item"], row)
        own = [e for e in told if e["user"] == rows[0]["user"] and e["time"] < rows[0]["time"]]
        clicks = [e for e in own if e["type"] == "click"][-SHORT:]
        late = [e for e in own if e["time"] >= rows[0]["time"] - DAYS * 86_400][-LONG:]
        found.append(
            {
                "view": view,
                "time": rows[0]["time"],
                "user": rows[0]["user"],
                "trigger": triggers[view],
                "items": list(first),
                "clicks": [max(r["clicked"] for r in rows if r["item"] == item) for item in first],
                "positions": [row["slot"] for row in first.values()],
                "short_items": [e["item"] for e in clicks],
                "short_times": [e["time"] for e in clicks],
                "long_items": [e["item"] for e in late],
                "long_times": [e["time"] for e in late],
            }
        )
    return found


def built(folder: Path, exposures: list[Row], events: list[Row], **exposure_keys: Any) -> BuildReport:
    """Builds a log with all page views in the training split."""
    write_rows(folder / "exposures.parquet", exposures, TYPES)
    write_rows(folder / "events.parquet", events, {"item": pa.string()})
    spec = write_spec(
        folder,
        exposures={**EXPOSURES, **exposure_keys},
        events=EVENTS,
        behaviours={"short": {"length": SHORT, "types": ["click"]}, "long": {"length": LONG, "days": DAYS}},
        split={"validation": "2040-01-01", "test": "2040-01-01"},
    )
    return build(spec)


@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(exposures, events, st.randoms(use_true_random=False))
def test_a_log_becomes_what_a_plain_program_makes_of_it(
    exposures: list[Row], events: list[Row], shuffle: random.Random
) -> None:
    wanted = expected(exposures, events)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if not wanted:
            with pytest.raises(DataError, match="no impression is left"):
                built(folder, exposures, events)
            return
        report = built(folder, exposures, events)
        pages = read_pages(folder / "out")
        keys = pq.read_table(folder / "out" / "page_ids" / "train.parquet")
        assert keys["page_id"].to_pylist() == [page["page_id"] for page in pages]
        names = [name for name in wanted[0] if name != "view"]
        found = [{"view": view, **{name: page[name] for name in names}}
                 for view, page in zip(keys["raw_view"].to_pylist(), pages, strict=True)]  # fmt: skip
        assert found == wanted
        for page in pages:
            assert all(time < page["time"] for time in page["short_times"] + page["long_times"])
        counts = report.counts["impressions"]
        assert counts["kept"]["total"] == sum(len(page["items"]) for page in pages)
        assert (
            counts["read"]["total"]
            == len(exposures)
            == counts["kept"]["total"] + sum(counts.get("dropped", {}).values())
        )
        before = contents(folder / "out")
        shutil.rmtree(folder / "out")
        shuffle.shuffle(exposures)
        shuffle.shuffle(events)
        built(folder, exposures, events)
        assert contents(folder / "out") == before

"""Pages that tell their own clicks are noticed; honest ones are not suspected."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lightning_ccn.data.check.check import check
from lightning_ccn.data.check.leaks import Leaks
from lightning_ccn.data.parquet import decode, open_part
from lightning_ccn.data.schema import read_schema
from lightning_ccn.data.world import WorldConfig, generate

Columns = dict[str, list]
Edit = Callable[..., Path]
PAGES = {"train_pages": 300, "validation_pages": 60, "test_pages": 60}


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = WorldConfig(users=150, items=400, page_min=4, page_max=8, long_length=30, **PAGES)  # type: ignore[arg-type]
    return generate(config, tmp_path_factory.mktemp("leaks") / "world")


def clicks_among_behaviours(columns: Columns, before: int) -> None:
    """Adds a page's clicked items to its own long sequence, `before` seconds before the page."""
    for row, time in enumerate(columns["time"]):
        clicked = [i for i, click in zip(columns["items"][row], columns["clicks"][row], strict=True) if click]
        pairs = [*zip(columns["long_times"][row], columns["long_items"][row], strict=True)]
        pairs = sorted([*pairs, *((time - before, item) for item in clicked)], key=lambda pair: pair[0])
        columns["long_times"][row], columns["long_items"][row] = ([pair[at] for pair in pairs] for at in (0, 1))


def test_an_honest_world_raises_no_suspicion_and_its_figures_are_reported(honest: Path) -> None:
    report = check(honest)
    assert (report.errors, report.warnings) == ([], [])
    text = str(report)
    assert "\n  behaviours of the last minute            0.0% (0.0%)       0.0% (0.0%)       0.0% (0.0%)\n" in text
    assert "\n  that show an item twice                         0.0%              0.0%              0.0%\n" in text


@pytest.mark.parametrize(
    ("before", "place", "at_their_second"),
    [(0, "behaviours of the last minute", 1), (50, "behaviours of the last minute", 0), (40_000, "all behaviours", 0)],
)
def test_a_page_whose_clicks_are_among_its_behaviours_is_warned_of(
    honest: Path, tmp_path: Path, edit: Edit, before: int, place: str, at_their_second: int
) -> None:
    folder = shutil.copytree(honest, tmp_path / "leak")
    edit(folder, "train", lambda columns: clicks_among_behaviours(columns, before))
    report = check(folder, write_stats=True)
    assert report.errors == []
    assert len(report.warnings) == 1 + at_their_second
    assert report.warnings[0].startswith(f"{folder}/train: 100.0% of the clicked but ")
    assert f" of the unclicked items are in {place}, so the page may tell its own clicks; " in report.warnings[0]
    if at_their_second:
        assert "% of the pages have a behaviour at their very second that is not the trigger" in report.warnings[1]


def test_a_trigger_that_is_a_click_on_the_page_is_warned_of(honest: Path, tmp_path: Path, edit: Edit) -> None:
    def trigger_of_the_page(columns: Columns) -> None:
        for row, clicks in enumerate(columns["clicks"]):
            if 1 in clicks:
                columns["trigger"][row] = columns["items"][row][clicks.index(1)]

    folder = shutil.copytree(honest, tmp_path / "leak")
    edit(folder, "test", trigger_of_the_page)
    (warning,) = check(folder, write_stats=True).warnings
    assert "% of the clicked but 0.0% of the unclicked items are in the trigger, so" in warning
    assert warning.endswith("; the trigger is the click by which the user entered the page, not one on it")


def test_a_trigger_among_the_behaviours_at_the_pages_second_is_no_leak(
    honest: Path, tmp_path: Path, edit: Edit
) -> None:
    def log_the_trigger(columns: Columns) -> None:
        for row, time in enumerate(columns["time"]):
            columns["short_items"][row].append(columns["trigger"][row])
            columns["short_times"][row].append(time)
            columns["items"][row][0], columns["clicks"][row][0] = columns["trigger"][row], 1  # and it is shown again

    folder = shutil.copytree(honest, tmp_path / "trigger")
    edit(folder, "train", log_the_trigger)
    warnings = check(folder, write_stats=True).warnings
    assert [w for w in warnings if "trigger" not in w.split("; ")[0]] == []


def test_pages_that_show_an_item_twice_are_warned_of(honest: Path, tmp_path: Path, edit: Edit) -> None:
    def twice(columns: Columns) -> None:
        for items in columns["items"][:150]:
            items[1] = items[0]

    folder = shutil.copytree(honest, tmp_path / "twice")
    edit(folder, "train", twice)
    (warning,) = check(folder, write_stats=True).warnings
    item = pq.read_table(folder / "train").column("items")[0].as_py()[0]
    assert warning == (
        f"{folder}/train: 50.0% of the pages show an item twice, such as item {item} in "
        f"{folder}/train/part-00000.parquet: row 0; write one entry per item and page, clicked if any of them was"
    )


def test_the_shares_are_those_counted_page_by_page(honest: Path) -> None:
    path = honest / "train" / "part-00000.parquet"
    leaks = Leaks(read_schema(honest))
    with open_part(path) as file:
        for group in range(file.num_row_groups):
            leaks.add("train", path, 0, decode(file, group, file.schema_arrow.names))
    found, shown = [0, 0], [0, 0]
    for row in pq.read_table(path).to_pylist():
        for item, click in zip(row["items"], row["clicks"], strict=True):
            shown[click] += 1
            found[click] += item in row["long_items"] or item in row["short_items"]
    expected = f"{found[1] / shown[1]:.1%} ({found[0] / shown[0]:.1%})"
    assert [line.split()[2:4] for line in leaks.figures() if "all behaviours" in line] == [expected.split()]
    assert found[1] > 0

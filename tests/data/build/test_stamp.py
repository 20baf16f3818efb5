"""A build of the same does nothing, and a build that failed leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.errors import DataError
from tests.data.build.raw_logs import (
    HALF,
    build,
    four_views,
    write_rows,
    write_spec,
)


def test_a_second_build_of_the_same_does_nothing_and_of_another_is_refused(tmp_path: Path) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    spec = write_spec(tmp_path)
    assert build(spec).built
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert "nothing to do" in str(build(spec)) and before == {path: path.stat().st_mtime_ns for path in before}
    with pytest.raises(DataError, match="was built from another specification; name another folder, or remove it"):
        build(write_spec(tmp_path, split={**HALF, "gap": "1s"}))
    write_rows(tmp_path / "exposures.parquet", four_views()[:-1])
    with pytest.raises(DataError, match=r"when other files were there \(1 have changed, such as .*exposures.parquet\)"):
        build(write_spec(tmp_path))


def test_what_a_build_that_failed_has_left_is_not_taken_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_rows(tmp_path / "exposures.parquet", four_views())
    spec = write_spec(tmp_path)
    said: list[str] = []

    def stop(line: str) -> None:
        said.append(line)
        if line.startswith("page views written"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(spec, say=stop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exposures.parquet", "log.yaml"]
    assert build(spec).built

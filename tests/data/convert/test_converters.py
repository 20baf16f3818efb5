"""The registry of `ccn data convert`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.commands.data import CONVERTERS, run


def convert_lines(source: Path, folder: Path, *, most: int = 2) -> str:
    """Pretends to convert.

    Args:
        source: The log.
        folder: Dataset folder to write.
        most: Largest number of lines.
    """
    return f"{most} lines of {source} written to {folder}"


def test_a_registered_converter_is_a_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CONVERTERS, "lines", convert_lines)
    assert run(["convert", "lines", "log", "out", "--most", "3"]) == 0
    assert capsys.readouterr().out == "3 lines of log written to out\n"


def test_both_public_logs_have_a_converter() -> None:
    assert list(CONVERTERS) == ["ebnerd", "mind"]

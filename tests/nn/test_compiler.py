"""A machine that cannot compile says what is missing before the first step."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_ccn.nn import compiler


def test_a_machine_without_a_compiler_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    words = compiler.missing_for_compile("cpu")
    assert words is not None and "g++ or clang++ or c++ is not on the PATH" in words
    (tmp_path / "g++").touch(mode=0o755)
    assert compiler.missing_for_compile("cpu") is None


def test_the_compiler_that_the_environment_names_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "missing"))
    words = compiler.missing_for_compile("cpu")
    assert words is not None and "missing is not on the PATH" in words


def test_a_gpu_needs_triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", "true")
    monkeypatch.setattr(compiler, "find_spec", lambda name: None)
    words = compiler.missing_for_compile("cuda")
    assert words is not None and "triton" in words

"""`open_package`: what cannot be served is refused before it is served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from lightning_ccn.serving import PackageError, Request, Scorer, Scores
from lightning_ccn.serving.service import served_package
from lightning_ccn.serving.service.served_package import form_texts, open_package
from tests.serving.service.conftest import EXAMPLES, changed, set_examples, set_vectors


def cut(name: str, last: int) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-last])


def newer_format(folder: Path) -> None:
    plain = json.loads((folder / "package.json").read_text())
    (folder / "package.json").write_text(json.dumps({**plain, "format": 99}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (newer_format, "has format 99, and this version serves format"),
        (cut("package.json", 30), "package.json: is damaged"),
        (cut("model.onnx", 5), "model.onnx: has"),
        (cut("tables/user.values.npy", 1), "user.values.npy: has"),
        (lambda folder: (folder / "ids" / "item.row.npy").unlink(), "item.row.npy: is missing"),
        (lambda folder: shutil.rmtree(folder), "is not a package"),
    ],
    ids=lambda words: words if isinstance(words, str) else None,
)
def test_a_package_that_is_not_whole_is_refused(
    package: Path, tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    folder = tmp_path / "package"
    shutil.copytree(package, folder)
    change(folder)
    with pytest.raises(PackageError) as caught:
        open_package(folder, 1)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "examples.json: is not JSON"),
        ('{"items": []}', "examples.json: has no list of requests"),
        ('{"requests": [{"items": ["x"]}]}', "does not score a request of its own, items[0]: 'x'"),
        ('[{"items": ["x"]}]', "does not score a request of its own, items[0]: 'x'"),
    ],
)
def test_examples_that_are_no_requests_are_refused(package: Path, tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(PackageError) as caught:
        open_package(changed(package, tmp_path / "package", set_examples(text)), 1)
    assert words in str(caught.value)


def test_the_digest_is_that_of_the_manifest(package: Path, newer: Path) -> None:
    for folder in (package, newer):
        assert open_package(folder, 1).digest == sha256((folder / "package.json").read_bytes()).hexdigest()


def test_a_package_survives_its_removal(package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "package"
    shutil.copytree(package, folder)
    scorer = open_package(folder, 1).scorer
    shutil.rmtree(folder)
    request = Request.from_plain(EXAMPLES[0])
    assert scorer.answer(request).probability.tolist() == Scorer(package).answer(request).probability.tolist()


def test_a_package_that_scores_no_number_is_refused(package: Path, tmp_path: Path) -> None:
    folder = changed(package, tmp_path / "package", set_vectors(np.nan, slice(0, 1)))  # of the unknown item
    with pytest.raises(PackageError, match="gives a probability that is not a number"):
        open_package(folder, 1)


def test_a_package_that_is_exchanged_while_it_is_opened_is_refused(
    package: Path, newer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "package"
    shutil.copytree(package, folder)

    class Exchanging(Scorer):
        def answer(self, request: Request) -> Scores:
            shutil.copyfile(newer / "package.json", folder / "package.json")
            return super().answer(request)

    monkeypatch.setattr(served_package, "Scorer", Exchanging)
    with pytest.raises(PackageError, match="was exchanged while it was opened"):
        open_package(folder, 1)


def test_texts_of_a_request_keep_long_ids_and_separate_ids_with_commas() -> None:
    assert form_texts({"items": ["a, b", "c"], "trigger": 2**62 + 1, "user": {"city": None}}) == {
        "items": "a, b\nc",
        "trigger": "4611686018427387905",
        "user.city": "",
    }

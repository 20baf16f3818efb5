"""`Serving`, followed as it is written: from a checkpoint to a score in three commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from lightning_ccn.cli import main
from lightning_ccn.serving import Scorer
from tests.docs.test_commands_run import expanded
from tests.serving.service.process import Client, ServerProcess

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
EXPORT, SERVE, CURL = re.findall(r"^```bash\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)[0].splitlines()


def test_three_commands_lead_from_a_checkpoint_to_a_score(
    package_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "default").mkdir(parents=True)
    (tmp_path / "runs" / "default" / "ID").symlink_to(package_run)
    [export], [serve] = expanded(EXPORT, tmp_path / "venv"), expanded(SERVE, tmp_path / "venv")
    assert main([*export, "--compiled", "false", "--pages", "20"]) == 0  # a compiler would take a minute
    assert serve[0] == "serve"
    server = ServerProcess(Path(serve[1]), tmp_path / "log", *serve[2:])
    try:
        words = [word.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}") for word in shlex.split(CURL)]
        given = json.loads(Path(words[-1].removeprefix("@")).read_text())
        if shutil.which("curl"):
            done = subprocess.run([*words, "--silent"], capture_output=True, text=True, check=True)
            answered = json.loads(done.stdout)
        else:
            answered = Client(server.port).ask("/score", given)[1]
        paths = re.findall(r"^\| `(?:GET|POST) (/\w*)` \|", PAGE, flags=re.MULTILINE)
        statuses = {path: Client(server.port).ask(path)[0] for path in paths}
    finally:
        server.stop()
    scorer = Scorer(tmp_path / serve[1])
    assert len(answered["answers"]) == len(given["requests"]) == 5
    for request, answer in zip(given["requests"], answered["answers"], strict=True):
        assert answer["probability"] == pytest.approx(scorer.score(**request).probability.tolist(), rel=1e-6)
        assert len(set(answer["probability"])) > 1  # its ids are known
    assert statuses == {"/score": 405, "/": 200, "/package": 200, "/healthz": 200, "/readyz": 200, "/metrics": 200}
    listed = re.findall(r"^\| `(\w+)` \|", PAGE.split("field of an answer")[1].split("###")[0], flags=re.MULTILINE)
    assert listed == [*answered["answers"][0], "package"]


def test_the_inputs_that_the_page_makes_for_triton_give_the_scorers_probabilities(
    package: Path, tmp_path: Path
) -> None:
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    made: dict[str, Any] = {}
    exec(code.replace("packages/today", str(package)), made)
    graph = onnxruntime.InferenceSession(package / "triton" / "ccn" / "1" / "model.onnx")
    config = (package / "triton" / "ccn" / "config.pbtxt").read_text()
    names = re.findall(r'name: "(\w+)", data_type', config.split("output [")[0])
    [probability] = graph.run(["probability"], {name: made["inputs"][name] for name in names})
    expected = Scorer(package).answer(made["request"]).probability
    assert probability.tolist() == pytest.approx(expected.tolist(), rel=1e-6)


def test_the_page_names_the_metrics_that_there_are(package: Path, tmp_path: Path) -> None:
    server = ServerProcess(package, tmp_path / "log")
    try:
        client = Client(server.port)
        client.ask("/score", {"items": [1]})
        said = client.ask("/metrics")[1]
    finally:
        server.stop()
    table = PAGE.split("### Metrics")[1].split("\nThose of")[0]
    named = {
        name
        for row in re.findall(r"^\| (`ccn_.*?) \|", table, flags=re.MULTILINE)
        for name in re.findall(r"`(\w+)`", row)
    }
    there = set(re.findall(r"^# TYPE (ccn_\w+)", said, flags=re.MULTILINE))
    assert named == there

"""`write_deployment`: what Docker and Triton are told is what the package has. Neither runs here."""

from __future__ import annotations

import re
import shlex
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest

from lightning_ccn.commands import serve
from lightning_ccn.serving.deploy import NEEDED, write_deployment

ROOT = Path(__file__).parents[2]
TYPES = {"TYPE_FP32": np.float32, "TYPE_INT64": np.int64}
TENSOR = re.compile(r'\{ name: "(\w+)", data_type: (\w+), dims: \[ ([-\d, ]+) \] \}')


@pytest.fixture(scope="module")
def deployment(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployment files of a package, in a folder with its graph alone."""
    folder = tmp_path_factory.mktemp("deployment")
    (folder / "model.onnx").write_bytes((package / "model.onnx").read_bytes())
    write_deployment(folder)
    return folder


def tensors(config: str, kind: str) -> dict[str, tuple[object, list[int]]]:
    """Name -> type and sizes, as the configuration lists them."""
    (listed,) = re.findall(rf"^{kind} \[\n(.*?)\n\]$", config, re.DOTALL | re.MULTILINE)
    found = TENSOR.findall(listed)
    assert TENSOR.sub("", listed).replace(",", "").split() == []  # nothing else is listed
    return {name: (TYPES[of], [int(size) for size in sizes.split(",")]) for name, of, sizes in found}


def test_triton_is_told_the_inputs_and_outputs_of_the_graph(deployment: Path) -> None:
    config = (deployment / "triton" / "ccn" / "config.pbtxt").read_text()
    copied = deployment / "triton" / "ccn" / "1" / "model.onnx"
    assert copied.read_bytes() == (deployment / "model.onnx").read_bytes()
    graph = onnx.load(copied).graph
    for kind, entries in (("input", graph.input), ("output", graph.output)):
        expected = {
            entry.name: (
                onnx.helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type),
                [size.dim_value or -1 for size in entry.type.tensor_type.shape.dim],
            )
            for entry in entries
        }
        assert expected
        assert tensors(config, kind) == expected
    assert re.findall(r'^(?:name: "ccn"|backend: "onnxruntime"|max_batch_size: 0)', config, re.MULTILINE)
    assert config.count("{") == config.count("}")
    assert config.count("[") == config.count("]")


def test_the_image_runs_the_service_as_nobody_in_particular_with_the_versions_of_this_machine(deployment: Path) -> None:
    lines = (deployment / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    names = [name for name, _ in steps]
    assert names == ["FROM", "RUN", "COPY", "RUN", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"]
    said = dict(steps)
    assert said["USER"] == "ccn"
    installed = shlex.split(steps[1][1])[3:]
    assert installed == [f"{name}=={metadata.version(name)}" for name in NEEDED]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(NEEDED) <= {re.split("[>=<[]", dependency)[0] for dependency in project["dependencies"]}
    assert "--no-deps /tmp/lightning_ccn-*.whl" in steps[3][1]
    assert said["ENTRYPOINT"] == '["ccn", "serve", "/package", "--host", "0.0.0.0"]'
    assert f":{said['EXPOSE']}/healthz" in said["HEALTHCHECK"]


def test_the_image_has_the_port_that_the_service_takes_by_default(
    deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        serve.run(["--help"])
    (port,) = re.findall(r"Port to listen at.*?default:\s+(\d+)", capsys.readouterr().out, re.DOTALL)
    assert f"EXPOSE {port}\n" in (deployment / "Dockerfile").read_text()

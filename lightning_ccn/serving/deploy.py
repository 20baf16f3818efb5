"""What a package needs to run elsewhere: a Dockerfile for the service, and a model repository for Triton."""

from __future__ import annotations

import shutil
import sys
from importlib import metadata
from pathlib import Path

import onnxruntime

from lightning_ccn.serving.package import GRAPH

DOCKERFILE, TRITON = "Dockerfile", "triton"
MODEL = "ccn"  # its name for Triton, and of its folder
NEEDED = ("numpy", "onnxruntime", "starlette", "uvicorn", "prometheus-client")  # of the service, without what they need
TYPES = {"tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}


def write_deployment(folder: Path) -> None:
    """Writes a Dockerfile and a model repository for Triton into a package.

    Args:
        folder: The package, with its graph.
    """
    (folder / DOCKERFILE).write_text(_dockerfile())
    version = folder / TRITON / MODEL / "1"
    version.mkdir(parents=True)
    shutil.copyfile(folder / GRAPH, version / GRAPH)
    (version.parent / "config.pbtxt").write_text(_triton_config(folder / GRAPH))


def _dockerfile() -> str:
    """The service with this package; the versions are those of this machine, which were tested together."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    pinned = " ".join(f"{name}=={metadata.version(name)}" for name in NEEDED)
    return f"""\
# docker build --tag ccn-today .      here, with the wheel of lightning_ccn beside this file
FROM python:{python}-slim
RUN pip install --no-cache-dir {pinned}
COPY lightning_ccn-*.whl /tmp/
# without its dependencies, most of which only training needs
RUN pip install --no-cache-dir --no-deps /tmp/lightning_ccn-*.whl && useradd --system --no-create-home ccn
COPY --chown=root:root . /package
USER ccn
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \\
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
ENTRYPOINT ["ccn", "serve", "/package", "--host", "0.0.0.0"]
"""


def _triton_config(graph: Path) -> str:
    """What Triton calls a model configuration, with the inputs and outputs of the graph."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    lines = [f'name: "{MODEL}"', 'backend: "onnxruntime"', "max_batch_size: 0  # a request is one page"]
    for kind, entries in (("input", session.get_inputs()), ("output", session.get_outputs())):
        tensors = [_tensor(entry.name, entry.type, entry.shape) for entry in entries]
        lines += [f"{kind} [", ",\n".join(tensors), "]"]
    lines += ["instance_group [", "  { kind: KIND_CPU, count: 1 }", "]"]
    lines += ['parameters { key: "intra_op_thread_count", value: { string_value: "1" } }', ""]
    return "\n".join(lines)


def _tensor(name: str, type_: str, shape: list[int | str]) -> str:
    sizes = ", ".join("-1" if isinstance(size, str) else str(size) for size in shape)
    return f'  {{ name: "{name}", data_type: {TYPES[type_]}, dims: [ {sizes} ] }}'

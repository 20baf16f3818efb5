"""Graphs that AOTInductor compiles for one kind of CPU. The only file of this folder that imports torch.

torch documents AOTInductor under a private name, so this file adapts it, and the rest of the package does not know it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from lightning_ccn.serving.errors import PackageError


def compile_graph(program: torch.export.ExportedProgram, path: Path) -> None:
    """Compiles a graph into a file; needs a C++ compiler and takes about a minute."""
    torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def load_graph(path: Path, threads: int) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """The graph in a file, as a function from its inputs to its outputs by name.

    Args:
        path: What `compile_graph` wrote.
        threads: Threads of torch, for this process.

    Raises:
        PackageError: The file cannot be loaded, as on another kind of CPU.
    """
    torch.set_num_threads(threads)
    try:
        graph = torch._inductor.aoti_load_package(str(path))
    except (RuntimeError, OSError) as error:
        raise PackageError(
            f"{path}: cannot be loaded on this machine: {' '.join(str(error).split())[:300]}; serve with ONNX, or "
            "export on a machine of this kind"
        ) from None

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        with torch.no_grad():
            outputs = graph({name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run

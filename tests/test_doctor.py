"""Every mismatch is named with its remedy; the facts are those of real machines, the error texts real ones."""

import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_ccn.doctor import COMPATIBLE, REQUIRED, Facts, Finding, diagnose, table

ROOT = Path(__file__).parents[1]

CPU = Facts(
    system="Linux x86_64",
    python="3.11.7 in /home/ada/lightning_ccn/.venv",
    versions={
        "torch": "2.13.0+cpu",
        "torchrec": "1.8.0",
        "fbgemm-gpu-cpu": "1.8.0",
        "lightning": "2.6.6",
        "torchmetrics": "1.9.0",
        "pyarrow": "26.0.1",
        "duckdb": "1.5.6",
        "numpy": "2.4.6",
        "jsonargparse": "4.53.0",
        "PyYAML": "6.0.3",
        "Jinja2": "3.1.6",
        "rich": "15.0.0",
        "wandb": "0.31.0",
        "matplotlib": "3.11.2",
        "scipy": "1.17.1",
        "optuna": "5.0.0",
        "onnx": "1.23.2",
        "onnxscript": "0.7.2",
        "onnxruntime": "1.32.0",
        "starlette": "1.10.0",
        "uvicorn": "0.54.0",
        "prometheus-client": "0.26.0",
        "tensordict": "0.15.3",
        "tqdm": "4.70.1",
        "pyre-extensions": "0.0.32",
    },
    failure=None,
    torch_build="cpu",
    usable_gpus=0,
    gpus=(),
    cores=2,
    memory=24 * 2**30,
    disk=80 * 2**30,
    shared=12 * 2**30,
    open_files=20000,
    slurm=False,
    wandb_key=False,
)


def with_versions(facts: Facts, changes: dict[str, str | None]) -> Facts:
    """The facts with other versions; None takes a distribution away."""
    versions = {**facts.versions, **changes}
    return replace(facts, versions={name: version for name, version in versions.items() if version})


CUDA = replace(
    with_versions(CPU, {"torch": "2.13.0", "fbgemm-gpu-cpu": None, "fbgemm-gpu": "1.8.0"}),
    torch_build="cuda 13.0",
    usable_gpus=8,
    gpus=("NVIDIA H200",) * 8,
)


def verdicts(facts: Facts) -> list[Finding]:
    return [finding for finding in diagnose(facts) if finding.verdict != "ok"]


@pytest.mark.parametrize("facts", [CPU, CUDA], ids=["cpu", "cuda"])
def test_healthy_machines_have_nothing_to_remedy(facts: Facts) -> None:
    assert [finding for finding in diagnose(facts) if finding.verdict != "ok" or finding.remedy] == []


def test_older_release_that_matches_is_fine() -> None:
    assert verdicts(with_versions(CPU, {"torch": "2.11.0", "torchrec": "1.6.1", "fbgemm-gpu-cpu": "1.6.0"})) == []


@pytest.mark.parametrize("name", ["torch", "torchrec", "fbgemm-gpu-cpu"])
def test_each_of_the_three_that_must_match_is_named_when_missing(name: str) -> None:
    problem, *_ = verdicts(with_versions(CPU, {name: None}))
    assert problem.verdict == "problem"
    assert f"{name} missing" in problem.found
    assert "make install" in problem.remedy


@pytest.mark.parametrize(
    "changes",
    [{"torch": "2.12.1"}, {"torchrec": "1.6.1"}, {"fbgemm-gpu-cpu": "1.6.0"}, {"torch": "0 (damaged)"}],
    ids=str,
)
def test_mismatch_of_the_three_is_a_problem(changes: dict[str, str | None]) -> None:
    (problem,) = verdicts(with_versions(CPU, changes))
    assert problem.check == "torch, torchrec, fbgemm"
    assert problem.verdict == "problem"
    assert "make install" in problem.remedy


def test_mismatch_says_what_goes_with_the_torch_that_is_there() -> None:
    (problem,) = verdicts(with_versions(CUDA, {"torch": "2.11.0"}))
    assert "--no-deps 'torchrec==1.6.*' 'fbgemm-gpu==1.6.*'" in problem.remedy


def test_both_fbgemm_distributions_are_a_conflict() -> None:
    (problem,) = verdicts(with_versions(CUDA, {"fbgemm-gpu-cpu": "1.8.0"}))
    assert "overwrite each other" in problem.remedy


@pytest.mark.parametrize(
    "changes",
    [{"fbgemm-gpu": None, "fbgemm-gpu-cpu": "1.8.0"}, {"torch": "2.13.0+cpu"}],
    ids=["fbgemm for the CPU", "torch for the CPU"],
)
def test_cpu_wheel_on_a_gpu_machine_is_a_problem(changes: dict[str, str | None]) -> None:
    build = "cpu" if "torch" in changes else "cuda 13.0"
    (problem,) = verdicts(replace(with_versions(CUDA, changes), torch_build=build))
    assert problem.verdict == "problem"
    assert "CPU wheels on a GPU machine" in problem.remedy
    assert "FLAVOUR=cuda" in problem.remedy


def test_gpu_that_torch_cannot_use_is_a_problem() -> None:
    (problem,) = verdicts(replace(CUDA, usable_gpus=0))
    assert "driver is too old for cuda 13.0" in problem.remedy


def test_cuda_flavour_without_a_gpu_is_a_warning_because_login_nodes_have_none() -> None:
    (warning,) = verdicts(replace(CUDA, gpus=(), usable_gpus=0))
    assert warning.verdict == "warning"
    assert "login node" in warning.remedy


def test_big_torch_wheel_on_a_cpu_machine_is_only_remarked() -> None:
    facts = replace(CPU, torch_build="cuda 13.0")
    assert verdicts(facts) == []
    assert any("INDEX=" in finding.remedy for finding in diagnose(facts))


@pytest.mark.parametrize("name", REQUIRED)
def test_each_package_is_named_when_missing(name: str) -> None:
    (problem,) = verdicts(with_versions(CPU, {name: None}))
    assert problem.found == f"missing: {name}"
    assert "make install" in problem.remedy


@pytest.mark.parametrize(("name", "version"), [("lightning", "2.5.9"), ("lightning", "2.7.0"), ("numpy", "3.0.1")])
def test_package_out_of_range_is_a_problem(name: str, version: str) -> None:
    (problem,) = verdicts(with_versions(CPU, {name: version}))
    assert (problem.check, problem.found, problem.verdict) == (name, version, "problem")


@pytest.mark.parametrize(
    ("module", "printed", "words"),
    [
        (
            "fbgemm_gpu",
            "OSError: /x/fbgemm_gpu/fbgemm_gpu_config.so: undefined symbol: _ZNR5torch7Library4_defEOSt7variant\n\n"
            "The above exception was the direct cause of the following exception:\n\n"
            "OSError: Could not load this library: /x/fbgemm_gpu/fbgemm_gpu_config.so",
            "compiled for another torch",
        ),
        (
            "fbgemm_gpu",
            "AttributeError: '_OpNamespace' 'fbgemm' object has no attribute 'jagged_2d_to_dense'",
            "did not load",
        ),
        (
            "fbgemm_gpu",
            "OSError: libtorch_cuda.so: cannot open shared object file: No such file or directory\n"
            "OSError: Could not load this library: /x/fbgemm_gpu/fbgemm_gpu_config.so",
            "torch for the CPU",
        ),
        (
            "fbgemm_gpu",
            "OSError: libnvidia-ml.so.1: cannot open shared object file: No such file or directory\n"
            "OSError: Could not load this library: /x/fbgemm_gpu/fbgemm_gpu_py.so",
            "NVIDIA's driver",
        ),
        ("torch", "ImportError: libcuda.so.1: cannot open shared object file", "NVIDIA's driver"),
        ("torch", "ImportError: /lib64/libm.so.6: version `GLIBC_2.27' not found", "glibc 2.28"),
        ("torchrec", "ModuleNotFoundError: No module named 'tensordict'", "missing"),
        ("torchrec", "\nkilled by SIGSEGV", "crashes while it loads"),
        ("lightning", "SyntaxError: invalid syntax", "damaged"),
        ("pyarrow", "", "damaged"),
    ],
)
def test_failed_import_is_explained_in_words(module: str, printed: str, words: str) -> None:
    (problem,) = verdicts(replace(CPU, failure=(module, printed)))
    assert problem.check == f"import {module}"
    assert problem.verdict == "problem"
    assert words in problem.remedy


def test_other_systems_and_pythons_are_problems() -> None:
    system, python = verdicts(replace(CPU, system="Darwin arm64", python="3.14.1 in /usr"))
    assert "Linux" in system.remedy
    assert "PYTHON=" in python.remedy


@pytest.mark.parametrize(
    "changes", [{"memory": 2**30}, {"disk": 2**30}, {"shared": 64 * 2**20}, {"open_files": 256}], ids=str
)
def test_scarce_resource_is_a_warning_with_a_remedy(changes: dict[str, int]) -> None:
    (warning,) = verdicts(replace(CPU, **changes))  # type: ignore[arg-type]
    assert warning.verdict == "warning"
    assert warning.remedy


def test_unlimited_open_files_and_no_shared_memory_folder_are_fine() -> None:
    assert verdicts(replace(CPU, open_files=-1, shared=None)) == []


@pytest.mark.parametrize("width", [80, 120, 200])
def test_table_keeps_every_word_and_fits_the_terminal(width: int) -> None:
    findings = diagnose(replace(CUDA, gpus=(), failure=("torch", "killed by SIGABRT")))
    text = table(findings, width)
    assert max(len(line) for line in text.splitlines()) <= max(width, 110)
    for word in " ".join(finding.remedy for finding in findings).split():
        assert word in text


def test_ranges_and_releases_are_those_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    stated = set()
    for name, (at_least, below) in REQUIRED.items():
        extra = "[signatures]" if name == "jsonargparse" else ""
        stated.add(f"{name}{extra}>={at_least}" + (f",<{below}" if below else ""))
    assert stated == set(project["project"]["dependencies"])
    newest = COMPATIBLE[0]
    torchrec = project["tool"]["lightning_ccn"]["no-deps"]["torchrec"]
    assert minor(torchrec) == newest.torchrec
    for extra, fbgemm in (("cpu", "fbgemm-gpu-cpu"), ("cuda", "fbgemm-gpu")):
        pins = dict(pin.split("==") for pin in project["project"]["optional-dependencies"][extra])
        assert {name: minor(pin) for name, pin in pins.items()} == {"torch": newest.torch, fbgemm: newest.fbgemm}


def minor(version: str) -> str:
    """2.14.1 is of the minor version 2.14."""
    return version.rpartition(".")[0]


def run_doctor(extra_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(folder) for folder in (extra_path, ROOT) if folder)
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-m", "lightning_ccn.doctor"]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_this_environment_has_no_problem() -> None:
    answer = run_doctor()
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "problems: 0" in answer.stdout


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("raise OSError('c10.so: undefined symbol: _ZN3')", "undefined symbol"),
    ],
    ids=["crash", "undefined symbol"],
)
def test_library_that_does_not_load_is_reported_and_not_fatal(tmp_path: Path, body: str, words: str) -> None:
    (tmp_path / "torch.py").write_text(body)
    answer = run_doctor(tmp_path)
    assert answer.returncode == 1, answer.stderr
    assert "import torch" in answer.stdout
    assert words in answer.stdout

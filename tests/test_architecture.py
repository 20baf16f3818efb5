"""The package's rooms import each other in the allowed directions only, and docs/architecture.md shows how."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.figures.imports import PACKAGE, SVG, arrows, draw, floors

ROOT = Path(__file__).parents[1]
FROM_BOTTOM = {"data", "errors", "sharding"}
RUN = {"callbacks", "conf_files", "evaluation", "lightning_private", "loggers", "models", "module", "signals"}
# The one list of allowed directions: room -> the rooms that it may import.
ALLOWED: dict[str, set[str]] = {
    "conf_files": set(),
    "errors": set(),
    "lightning_private": set(),
    "provenance": set(),
    "signals": set(),
    "sharding": set(),  # can be lifted out of the package
    "data": {"errors"},
    "data/build": {"data", "data/check", "data/convert", "errors"},
    "data/check": {"data", "errors"},
    "data/convert": {"data", "errors"},
    "data/world": {"data", "errors"},
    "nn": {"data"},
    "models": {"data", "nn"},
    "evaluation": {"data", "errors", "models", "nn"},
    "losses": {"data", "evaluation", "models", "nn"},
    "module": {"evaluation", "lightning_private", "losses", "models", "nn", *FROM_BOTTOM},
    "serving": {"data", "errors"},  # runs where torch is not installed
    "serving/service": {"errors", "serving"},
    "export": {"data", "errors", "evaluation", "models", "nn", "serving", "sharding"},
    "loggers": {"lightning_private", "provenance", "sharding", "signals"},
    "callbacks": {*RUN - {"callbacks", "conf_files"}, *FROM_BOTTOM},
    "training": {*RUN, *FROM_BOTTOM},
    "commands": {
        *(
            "data/build",
            "data/check",
            "data/convert",
            "data/world",
            "evaluation",
            "export",
            "module",
            "serving",
            "serving/service",
            "studies/html_report",
            "training",
        ),
        *FROM_BOTTOM,
    },
    "studies": set(),
    "studies/html_report": set(),  # reads plain values, such as those of compare.json, and nothing else
    "studies/comparison": {
        *("callbacks", "conf_files", "evaluation", "provenance", "studies/html_report", "training"),
        *FROM_BOTTOM,
    },
    "studies/simulation": {"data/world", "studies/comparison", *FROM_BOTTOM},
    "cluster": {"conf_files", "provenance", "studies/comparison", "training", *FROM_BOTTOM},
    "doctor": {"loggers"},  # runs where torch does not import
    "cli": {"cluster", "commands", "doctor", "studies/comparison", "studies/simulation", "training", *FROM_BOTTOM},
    "job_rank": {"cli", "signals", "training"},
}


def test_every_room_imports_only_what_it_may() -> None:
    found = arrows()
    assert set(found) == set(ALLOWED), "a room is new or gone: say in ALLOWED what it may import"
    forbidden = {room: sorted(others - ALLOWED[room]) for room, others in found.items()}
    assert {room: others for room, others in forbidden.items() if others} == {}


def test_no_rooms_import_each_other_in_a_circle() -> None:
    assert floors(ALLOWED)  # raises for a circle, and names its rooms
    assert floors(arrows())


def test_a_circle_is_found_and_named() -> None:
    with pytest.raises(ValueError, match="a circle of imports: data -> nn -> data"):
        floors({"data": {"nn"}, "nn": {"data"}})


def test_the_drawing_is_that_of_the_present_imports() -> None:
    assert SVG.read_text() == draw(arrows()), "run: python docs/figures/imports.py"


def test_the_page_on_the_architecture_describes_every_room() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    described = set(re.findall(r"^\| `([\w/]+?)(?:/|\.py)?` \|", text, re.MULTILINE))
    assert set(ALLOWED) - {"studies"} <= described


@pytest.mark.parametrize(
    "module", ["lightning_ccn", "lightning_ccn.doctor", "lightning_ccn.serving", "lightning_ccn.signals"]
)
def test_an_import_that_must_be_light_loads_no_torch(module: str) -> None:
    code = f"import {module}, sys; print('torch' in sys.modules or 'lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "False\n"


def test_no_two_classes_share_a_name() -> None:
    names: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for name in re.findall(r"^class (\w+)", path.read_text(), re.MULTILINE):
            names.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert {name: paths for name, paths in names.items() if len(paths) > 1} == {}


def test_no_module_is_imported_under_another_name() -> None:
    renamed = re.compile(r"^from lightning_ccn\S* import [a-z_]+ as \w+$", re.MULTILINE)
    files = [path for folder in ("lightning_ccn", "tests", "examples") for path in (ROOT / folder).rglob("*.py")]
    assert {str(path): renamed.findall(path.read_text()) for path in files if renamed.search(path.read_text())} == {}


def test_private_members_stay_private() -> None:
    """Nobody reads another object's `_name`, but for the files that adapt Lightning, TorchRec and torch."""
    reads = re.compile(r"(?<![\w.])(?!self\b|cls\b|os\b|super\b)\w+(?:\[[^]]*\]|\(\))?\._(?!_)\w+")
    adapters = {"lightning_private.py", "torchrec_private.py", "aot_inductor.py"}
    files = [path for folder in ("lightning_ccn", "tests", "examples") for path in (ROOT / folder).rglob("*.py")]
    found = {
        str(path.relative_to(ROOT)): matches
        for path in files
        if path.name not in adapters and (matches := reads.findall(path.read_text()))
    }
    assert found == {}

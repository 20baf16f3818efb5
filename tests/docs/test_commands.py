"""Every `ccn` and `make` command line in the documentation names a command, options, targets and files that exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from lightning_ccn.cli import COMMANDS, main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, flags=re.MULTILINE))
VARIABLES = set(re.findall(r"^#\? ([A-Z_]+) ", MAKEFILE, flags=re.MULTILINE))
LIKE_FIT = {"validate", "test", "predict", "plan", "compare"}  # commands that also take the options of `ccn fit`
OF_A_CLASS = ("--model.system.", "--model.optimizer.", "--trainer.strategy.")  # options that --help does not list


def commands(page: Path) -> list[str]:
    """Command lines of a page: those of its shell blocks, and inline code that starts with `ccn` or `make`."""
    text = page.read_text()
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    inline = [" ".join(code.split()) for code in re.findall(r"`((?:ccn|make)\s[^`]+)`", prose)]
    return lines + inline


@cache
def known_options(*command: str) -> set[str]:
    """The options that `ccn COMMAND --help_all` lists, or `--help` where that is all."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*command, "--help_all" if command[0] in {"fit", "validate", "test", "predict", "plan"} else "--help"])
    return set(re.findall(r"--[\w.]+", shown.getvalue()))


def problems(line: str, written_by_the_reader: set[str]) -> list[str]:
    """What a command line names that does not exist."""
    words = [word for word in shlex.split(line, comments=True) if word not in ("...", "COMMAND")]
    names = [Path(word).name for word in words]
    if "make" in names[:1]:
        return make_problems(words[1:])
    if "ccn" in names:  # after torchrun, too
        return ccn_problems(words[names.index("ccn") + 1 :], written_by_the_reader)
    return []


def make_problems(words: list[str]) -> list[str]:
    targets = [word for word in words if "=" not in word]
    given = dict(word.split("=", 1) for word in words if "=" in word)
    found = [f"no target {target}" for target in targets if target not in TARGETS]
    found += [f"no variable {name}" for name in given if name not in VARIABLES]
    command = (
        {"finetune": "fit", "train": "fit"}.get(targets[0].removesuffix("-multinode"), targets[0]) if targets else ""
    )
    if command in COMMANDS and "ARGS" in given:
        found += ccn_problems([command, *shlex.split(given["ARGS"])], set())
    return found + [f"no file {path}" for path in given.get("CONFIG", "").split() if not (ROOT / path).is_file()]


def ccn_problems(words: list[str], written_by_the_reader: set[str]) -> list[str]:
    if not words or words[0] == "--help":
        return []
    if words[0] not in COMMANDS:
        return [f"no command {words[0]}"]
    command, options = words[:1], [word for word in words[1:] if word.startswith("--")]
    if command == ["data"] and len(words) > 1:
        command = ["data", *words[1 : 3 if words[1] == "convert" else 2]]
    if words[0] == "submit":
        return []
    known = known_options(*command) | (known_options("fit") if words[0] in LIKE_FIT else set())
    if not known:
        return [f"no command {' '.join(command)}"]
    found = [
        f"no option {option}"
        for option in (word.partition("=")[0] for word in options)
        if option not in known and not option.startswith(OF_A_CLASS) and option != "--print_config"
    ]
    for word in words:
        for path in re.findall(r"(?:^|[,=])(conf/[\w/.-]+)", word):
            if not (ROOT / path).is_file() and path not in written_by_the_reader:
                found.append(f"no file {path}")
    if "--systems" in words:
        names = words[words.index("--systems") + 1].split(",")
        models = {path.stem for path in (ROOT / "conf" / "model").glob("*.yaml")}
        found += [f"no system {name}" for name in names if name not in models and not name.endswith((".yaml", "..."))]
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_name_what_exists(page: Path) -> None:
    written = set(re.findall(r'title="([^" ]+)', page.read_text()))
    found = {line: problems(line, written) for line in commands(page)}
    assert {line: problem for line, problem in found.items() if problem} == {}


def test_commands_are_found_on_the_pages() -> None:
    assert sum(len(commands(page)) for page in PAGES) > 60


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ccn fitt --x 1", "no command fitt"),
        ("ccn fit --modle.lr 1", "no option --modle.lr"),
        ("ccn data yardsticks data/world", "no command data yardsticks"),
        ("ccn compare --systems sim,nothing", "no system nothing"),
        ("torchrun --nproc_per_node 2 .venv/bin/ccn fit --config conf/no.yaml", "no file conf/no.yaml"),
        ("make trains", "no target trains"),
        ('make train DATUM=x ARGS="--model.lr 1"', "no variable DATUM"),
        ('make train ARGS="--modle.lr 1"', "no option --modle.lr"),
        ("make train CONFIG=conf/no.yaml", "no file conf/no.yaml"),
    ],
    ids=lambda value: str(value),
)
def test_what_does_not_exist_is_found(line: str, problem: str) -> None:
    assert problems(line, set()) == [problem]

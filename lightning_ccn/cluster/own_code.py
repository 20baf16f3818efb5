"""The user's own Python code that a run's options name, such as `class_path: own_system.OwnSystem`."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

import lightning_ccn

NOT_COPIED = shutil.ignore_patterns("__pycache__", ".*")


def strings_in(options: Any) -> Iterator[str]:
    """Every string in nested mappings and sequences."""
    if isinstance(options, str):
        yield options
    elif isinstance(options, Mapping):
        for value in options.values():
            yield from strings_in(value)
    elif isinstance(options, (list, tuple)):
        for value in options:
            yield from strings_in(value)


def strings_in_words(words: Iterable[str]) -> Iterator[str]:
    """Every string in the words of a command line, and in the YAML files that they name."""
    for word in words:
        value = word.partition("=")[2] or word
        for part in value.split(","):
            path = Path(part)
            if path.suffix in (".yaml", ".yml") and path.is_file():
                yield from strings_in(yaml.safe_load(path.read_text()))
        try:
            yield from strings_in(yaml.safe_load(value))  # a value may be YAML itself
        except yaml.YAMLError:
            yield value


def own_code(names: Iterable[str]) -> list[Path]:
    """Files and folders of the top-level modules and packages of the user's own code.

    Own code is neither in the standard library, nor installed in site-packages, nor part of lightning_ccn.

    Args:
        names: Any strings; those that are no dotted name of something in an importable module are ignored.
    """
    found: dict[Path, None] = {}  # in the order of the names
    for name in names:
        module, _, attribute = name.rpartition(".")
        if module and all(part.isidentifier() for part in name.split(".")) and (places := _own_places(name)):
            try:
                exists = hasattr(import_module(module), attribute)
            except ImportError:
                continue
            if exists:
                found.update(dict.fromkeys(places))
    return list(found)


def copy_code(places: Iterable[Path], folder: Path) -> None:
    """Copies modules and packages into a folder, from where they can be imported if it is on PYTHONPATH."""
    for place in places:
        if place.is_dir():
            shutil.copytree(place, folder / place.name, ignore=NOT_COPIED, dirs_exist_ok=True)
        else:
            shutil.copy2(place, folder / place.name)


def _own_places(name: str) -> list[Path]:
    """The file of a top-level module or the folders of a top-level package; empty if it is not the user's own."""
    try:
        spec = find_spec(name.partition(".")[0])
    except ValueError:  # such as __main__
        return []
    if spec is None:
        return []
    if spec.submodule_search_locations is not None:
        places = [Path(place) for place in spec.submodule_search_locations]
    else:
        places = [Path(spec.origin)] if spec.has_location and spec.origin else []
    return [place for place in places if not _is_installed(place.resolve())]


def _is_installed(place: Path) -> bool:
    installed = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    installed.append(Path(lightning_ccn.__file__).resolve().parent)
    return any(place.is_relative_to(folder) for folder in installed) or "site-packages" in place.parts

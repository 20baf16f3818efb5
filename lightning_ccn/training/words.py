"""The words of a command before a parser sees them: what they are sorted by, and options that are needed early."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from lightning_ccn.conf_files import find_conf

LONG, SHORT = "--config", "-c"
CLASS = ".class_path"
UNSET = object()  # unlike null, which overrides what a file says


def in_order(args: list[str]) -> list[str]:
    """Puts the YAML files first, so that an option beats a file wherever it stands, and classes before their options.

    `--model.system TAN` names a class, and so does `--model.system.class_path TAN`.

    >>> in_order(["fit", "--model.system.gain", "3", "--model.system", "TAN", "--config", "a.yaml"])
    ['fit', '--config', 'a.yaml', '--model.system', 'TAN', '--model.system.gain', '3']
    """
    command = args[:1] if args and not args[0].startswith("-") else []
    files: list[str] = []
    options: list[list[str]] = [[""]]  # a name and its values each; before the first name, there may be values too
    words = iter(args[len(command) :])
    for word in words:
        if word in (LONG, SHORT):
            files += [word, *(following for following in [next(words, None)] if following is not None)]
        elif _names_a_file(word):
            files.append(word)
        elif word.startswith("--"):
            options.append([word])
        else:
            options[-1].append(word)
    ordered: list[list[str]] = []
    for option in options:
        within = option[0].partition("=")[0].removesuffix(CLASS) + "."
        of_class = (at for at, (name, *_) in enumerate(ordered) if name.startswith(within) and CLASS not in name)
        ordered.insert(next(of_class, len(ordered)), option)
    _, *others = (word for option in ordered for word in option)
    return [*command, *files, *others]


def given(args: list[str], names: tuple[str, ...]) -> dict[str, Any]:
    """What a command sets some options to, in its words or in its YAML files; options that it leaves out are missing.

    Args:
        args: The words; a file that cannot be read sets nothing here, and the parser will say why.
        names: Full names, such as `data.folder`.
    """
    found: dict[str, Any] = {}
    for content in _contents(args):
        for name in names:
            if (value := _at(content, name.split("."))) is not UNSET:
                found[name] = value
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in names:
        parser.add_argument(f"--{name}", dest=name, default=UNSET, nargs="?")
    values = vars(parser.parse_known_args(args)[0])
    found |= {name: None if value == "null" else value for name, value in values.items() if value is not UNSET}
    return found


def _names_a_file(word: str) -> bool:
    return word.startswith(f"{LONG}=") or (word.startswith(SHORT) and len(word) > len(SHORT))


def _contents(args: list[str]) -> Iterator[Mapping[str, Any]]:
    """What the YAML files of a command hold, in their order. YAML itself may be given in the place of a file."""
    ordered = in_order(args)
    for word, following in zip(ordered, [*ordered[1:], ""], strict=False):
        if word not in (LONG, SHORT) and not _names_a_file(word):
            continue
        value = following if word in (LONG, SHORT) else word.removeprefix(f"{LONG}=").removeprefix(SHORT)
        try:
            path = find_conf(value)
            content = yaml.safe_load(path.read_text() if path.is_file() else value)
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, Mapping):
            yield content


def _at(content: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(content, Mapping) or name not in content:
            return UNSET
        content = content[name]
    return content

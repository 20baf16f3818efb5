"""Parsers whose errors are one line, as all others of `ccn`: jsonargparse's stand under 80 lines of usage."""

from __future__ import annotations

import re
from typing import NoReturn

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

from lightning_ccn import models

# Lines around the point. The types that a value might have had are left out but for the last one.
_AROUND = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "Given value: NestedArg")
_NOT_MEANT = ("- Expected a path but", "- Expected a <class 'NoneType'>", "- Expected a <class 'str'>")
_SHORTER = (
    (r"Type \S*Callable\[.*?\] expects a function or a callable class: (.*?)[.] Got value: .*$", r"\1"),
    (r"Problem with given class_path '[\w.]*\.(\w+)':", r"\1:"),
    (r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1"),
    (r"Expected a typing\.Literal\[(.*?)\]", r"expected one of \1"),
    (r"Expected a dot import path string: (\S+)", r"there is no class '\1'"),
    (r"Expected an? (\w+)", r"expected \1"),
    (r"[.]? G(?:ot|iven) value: ", ", not "),
    (r"required: \w+\.(\w+\.)", r"required: --\1"),  # of a subcommand: fit.data.folder,
    (r"required: \w+\.(\w+)$", r"required: \1"),  # world.folder
)
_NO_SYSTEM = ("Prediction", "System")


class _OneLine(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the process with code 2, unless this parser tries a value on behalf of another."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        self.exit(2, f"ccn: error: {in_one_line(message)}; `{parser.prog.replace(' [options]', '')} --help` explains\n")


class CommandParser(_OneLine):
    """Of a command of ours."""


class TrainerParser(_OneLine, LightningArgumentParser):
    """Of Lightning's."""


def in_one_line(message: str) -> str:
    """What jsonargparse says, to the point.

    >>> in_one_line("Parser key \\"model.lr\\":\\n  Expected a <class 'float'>. Got value: abc")
    '--model.lr: expected float, not abc'
    """
    key = re.match(r'Parser key "([^"]+)":', message)
    lines = [line.strip() for line in message[key.end() if key else 0 :].splitlines()]
    lines = [line for line in lines if line and not line.startswith(_AROUND)]
    meant = [line for line in lines if not line.startswith(_NOT_MEANT)] or lines[-1:]
    text = " ".join(line.removeprefix("- ") for line in meant)
    for long, short in _SHORTER:
        text = re.sub(long, short, text)
    if key is None:
        return text
    if key[1] == "model.system" and "Option" not in text:
        text += f"; lightning_ccn.models has {', '.join(name for name in models.__all__ if name not in _NO_SYSTEM)}"
    return f"--{key[1]}: {text}"

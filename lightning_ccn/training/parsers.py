"""Parsers whose errors are one line, like all others of `ccn`. jsonargparse prints them below 80 lines of usage.

jsonargparse's exceptions carry no structure but the chain of their causes; the rest is in its wording, as of 4.53.
"""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterator
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]  # the first is not in __all__
from lightning.pytorch.cli import LightningArgumentParser

from lightning_ccn import models
from lightning_ccn.conf_files import find_conf

REQUIRED = "the following arguments are required: "
KEY = 'Parser key "'  # before the name of the option
# Lines of a message that do not say what is wrong with the value.
FRAME = ("Does not validate", "Subtypes:", "Errors:", "Given value type:", "Given value: NestedArg", "Expected a path")
OTHER_TYPES = ("Expected a <class 'NoneType'>", "Expected a <class 'str'>")  # whoever mistypes a number meant neither
WORDING = (
    ("Expected a dot import path string: ", "there is no class "),
    ("Expected a typing.Literal[", "expected one of ["),
    ("Expected a <class '", "expected "),
    ("Expected a ", "expected "),
    ("'>", ""),
    (KEY, '"'),
    (". Got value: ", ", not "),
    (" Given value: ", ", not "),
)


class _OneLineParser(ArgumentParser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the process with code 2, unless this parser tries a value on behalf of another."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        if message.startswith(REQUIRED):
            names = message.removeprefix(REQUIRED).split(", ")
            subcommand = next((word for word in self.args[:1] if names[0].startswith(f"{word}.")), "")
            names = [name.removeprefix(f"{subcommand}.") for name in names]
            message = REQUIRED + ", ".join(f"--{name}" if "." in name else name for name in names)  # else a positional
            command = f"{command} {subcommand}".rstrip()
        self.exit(2, f"ccn: error: {in_one_line(message, ex)}; `{command} --help` explains\n")


class CommandParser(_OneLineParser):
    """Parser for ccn's own commands."""


class TrainerParser(_OneLineParser, LightningArgumentParser):
    """Parser for the commands that run Lightning's Trainer."""


class ConfigFile(ActionConfigFile):
    """`--config FILE`, where `conf/...` also names the files that come with the package."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Reads the file into `cfg`."""
        is_conf = str(values).startswith("conf/")  # YAML itself may be given too, which is no path
        super().__call__(parser, cfg, str(find_conf(values)) if is_conf else values, option_string)


def in_one_line(message: str, error: BaseException | None = None) -> str:
    """The part of jsonargparse's message that says what is wrong, after the full name of the option.

    Args:
        message: What jsonargparse would print.
        error: The exception behind it, whose causes may be more specific.

    >>> in_one_line("Parser key \\"model.lr\\":\\n  Expected a <class 'float'>. Got value: abc")
    '--model.lr: expected float, not abc'
    """
    option, text = "", message
    while text.startswith(KEY):
        name, _, text = text.removeprefix(KEY).partition('":')
        option += f".{name}" if option else f"--{name}"
        specific = next(_specific_causes(error), None)
        if specific is not None:
            error, text = specific, str(specific)
    text = _in_words(text)
    if option == "--model.system" and "Option" not in text:
        text += f"; lightning_ccn.models has {', '.join(_systems())}"
    return f"{option}: {text}" if option else text


def _specific_causes(error: BaseException | None) -> Iterator[BaseException]:
    """Causes of an exception that name the trouble; those between only add the type that was expected."""
    while error is not None:
        error = error.__cause__
        if isinstance(error, (ArgumentError, ImportError, AttributeError)):
            yield error


def _in_words(text: str) -> str:
    lines = [line.strip().removeprefix("- ") for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith(FRAME)]
    problem = next((i for i, line in enumerate(lines) if line.startswith("Problem with")), None)
    if problem is not None:  # the value names a class, so no other type is meant
        lines = [line for line in lines[problem:] if not line.startswith("Given value:")]
    text = " ".join([line for line in lines if not line.startswith(OTHER_TYPES)] or lines)
    for theirs, ours in WORDING:
        text = text.replace(theirs, ours)
    return text


def _systems() -> list[str]:
    """Names of the systems in `lightning_ccn.models`."""
    classes = {name: getattr(models, name) for name in models.__all__}
    return [name for name, found in classes.items() if issubclass(found, models.System) and found is not models.System]

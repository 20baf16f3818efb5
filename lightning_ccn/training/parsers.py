"""Parsers whose errors are one line, like all others of `ccn`. jsonargparse prints them below 80 lines of usage.

jsonargparse's exceptions carry no structure but the chain of their causes; the rest is in its wording, as of 4.53.
"""

from __future__ import annotations

import difflib
from argparse import SUPPRESS, Action, ArgumentError, HelpFormatter, _HelpAction
from collections.abc import Iterator
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]  # the first is not in __all__
from lightning.pytorch.cli import LightningArgumentParser

from lightning_ccn.conf_files import find_conf
from lightning_ccn.training.new_class import drop_options_of_the_class_before
from lightning_ccn.training.option_checks import check_options
from lightning_ccn.training.saved_by_0_1_0 import options_it_lacks
from lightning_ccn.training.short_help import short_help, system_names

REQUIRED = "the following arguments are required: "
UNKNOWN = "unrecognized arguments: "
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
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # not `--seed` for --seed_everything: a script would mean another option after an update, and what is read
        # before the parser, such as --finetune, would not know the short form
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Ends the process with code 2, unless this parser tries a value on behalf of another."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        command = parser.prog.replace(" [options]", "")
        given = next(iter(self.args), "")
        if parser is self and self._subcommands_action is not None and given in self._subcommands_action.choices:
            command = f"{command} {given}"
        if message.startswith(REQUIRED):
            names = [name.removeprefix(f"{given}.") for name in message.removeprefix(REQUIRED).split(", ")]
            message = REQUIRED + ", ".join(f"--{name}" if "." in name else name for name in names)  # else a positional
        if message.startswith(UNKNOWN):
            message += self._meant(message.removeprefix(UNKNOWN).split()[0])
        text = in_one_line(message, ex)
        self.exit(2, f"ccn: error: {text}{'' if text.endswith('?') else ';'} `{command} --help` explains\n")

    def option_actions(self) -> list[Action]:
        """The options of this parser, without positional arguments and hidden options."""
        return [action for action in self._actions if action.option_strings and action.help != SUPPRESS]

    def _meant(self, option: str) -> str:
        """The option that is spelt most alike, as the end of a message."""
        parser: Any = self
        if self._subcommands_action is not None:
            parser = self._subcommands_action.choices.get(next(iter(self.args), ""), self)
        names = [name for action in parser.option_actions() for name in action.option_strings]
        close = difflib.get_close_matches(option.partition("=")[0], names, n=1, cutoff=0.7)
        return f"; did you mean {close[0]}?" if close else ""


class CommandParser(_OneLineParser):
    """Parser for ccn's own commands."""


class TrainerParser(_OneLineParser, LightningArgumentParser):
    """Parser for the commands that run Lightning's Trainer: `--help` is short, `--help_all` has every option."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        drop_options_of_the_class_before()
        # a help action, so that jsonargparse leaves it out of config files and of --model.system.help
        self.add_argument("--help_all", action=_FullHelp, help="show every option, with those of the Trainer's classes")

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:  # type: ignore[override]
        """Parses the options, and checks their values.

        Raises:
            CCNError, ShardingError: See `check_options`.
        """
        parsed: Namespace = super().parse_args(*args, **kwargs)
        if "_skip_validation" not in kwargs:  # which jsonargparse passes to the parser of a subcommand
            command = parsed.get("subcommand")
            check_options(parsed[command] if command else parsed, command)
        return parsed

    def format_help(self, formatter: HelpFormatter | None = None) -> str:
        """What `--help` prints."""
        return short_help(self.prog.replace(" [options]", ""), self.option_actions()) or self.full_help()

    def full_help(self) -> str:
        """What `--help_all` prints."""
        text: str = super().format_help()
        return text


class _FullHelp(_HelpAction):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        print(parser.full_help(), end="")
        parser.exit()


class ConfigFile(ActionConfigFile):
    """`--config FILE`, where `conf/...` also names the files that come with the package."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Reads the file into `cfg`."""
        if (lacking := options_it_lacks(values)) is not None:
            super().__call__(parser, cfg, lacking, option_string)
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
        text += f"; lightning_ccn.models has {', '.join(system_names())}"
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
    lines = list(dict.fromkeys([line for line in lines if not line.startswith(OTHER_TYPES)] or lines))
    before = ["", *lines]
    text = " ".join(
        f"or {line}" if line.startswith("Expected") and last and not last.endswith(":") else line
        for last, line in zip(before, lines, strict=False)
    )
    for theirs, ours in WORDING:
        text = text.replace(theirs, ours)
    return text

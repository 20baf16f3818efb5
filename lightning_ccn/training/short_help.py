"""`ccn fit --help` on two screens: the systems, and the options that most runs set. `--help_all` has the others."""

from __future__ import annotations

import re
import sys
import textwrap
from argparse import SUPPRESS, Action
from collections.abc import Iterator, Sequence
from inspect import getdoc
from typing import get_args

from lightning_ccn import models
from lightning_ccn.sharding import TorchRecStrategy

WIDTH, INDENT = 110, 36
EXPLAINED = {"fit", "validate", "test", "predict", "plan"}  # commands with the options of a run

# Group -> its options. One that a command does not have is left out. The words, where a signature has none or many.
GROUPS: dict[str, dict[str, str]] = {
    "Run": {
        "--config": "",
        "--runs": "",
        "--experiment": "",
        "--run_id": "",
        "--seed_everything": "seed of the weights that a run starts with",
        "--ckpt_path": "checkpoint to continue (fit) or to score with; last: the newest of the run that --run_id names",
        "--finetune": "",
        "--new_rows": "",
        "--keep_accumulators": "",
        "--same_ids": "",
        "--test_after_fit": "",
        "--save_every": "",
        "--output": "",
        "--ids": "",
        "--wandb": "",
        "--upload_checkpoints": "",
        "--checkpoint.monitor": "metric that chooses the best checkpoints: val_auc, val_page_gauc, val_logloss, ...",
        "--checkpoint.mode": "min or max; auto: the direction of the metric",
        "--checkpoint.save_top_k": "number of best checkpoints that are kept",
    },
    "Machine to plan for": {"--world_size": "", "--gpu_memory": "", "--headroom": ""},
    "Model": {
        "--model.system": "one of the systems above, or a class of your own by its import path",
        "--model.lr": "",
        "--model.final_lr": "",
        "--model.optimizer": "class of torch.optim for the dense layers, or your own; AdaGrad if not set",
        "--model.lr_scheduler": "class of torch.optim.lr_scheduler; a linear fall to final_lr if not set",
        "--model.listwise_weight": "",
        "--model.pairwise_weight": "",
        "--model.order_weight": "",
        "--model.auxiliary_start": "",
        "--model.cold_below": "",
        "--model.freeze": "",
    },
    "Data": {
        "--data.folder": "dataset folder, or its address in a store, such as s3://bucket/folder (required)",
        "--data.batch_pages": "",
        "--data.short_length": "",
        "--data.long_length": "",
        "--data.lanes": "",
        "--data.seed": "",
        "--data.workers": "",
        "--data.predict_split": "",
        "--data.cache": "folder on a disk of each node, for row groups of a store",
    },
    "Trainer": {
        "--trainer.max_epochs": "passes over the training pages",
        "--trainer.max_steps": "steps after which training ends, -1: no limit",
        "--trainer.max_time": "time after which training ends, DD:HH:MM:SS",
        "--trainer.devices": "ranks on this machine: a number, or auto",
        "--trainer.num_nodes": "machines",
        "--trainer.accelerator": "cpu, gpu or auto",
        "--trainer.precision": "32-true, bf16-mixed or 16-mixed",
        "--trainer.val_check_interval": "a validation every share of an epoch (0.5), or number of steps (500)",
        "--trainer.log_every_n_steps": "steps between two lines of metrics.csv, 0: none",
        "--trainer.limit_train_batches": "only the first batches of an epoch: a number, or a share",
        "--trainer.limit_val_batches": "the same for validations; 0: none",
        "--trainer.gradient_clip_val": "norm to which the dense gradient is clipped",
        "--trainer.callbacks": "callbacks, such as EarlyStopping",
        "--trainer.enable_progress_bar": "show a progress bar",
    },
}
STRATEGY = "--trainer.strategy."
SYSTEM = "--model.system"


def short_help(command: str, actions: Sequence[Action]) -> str | None:
    """The help of a command with the options of a run; None for others.

    Args:
        command: Program and command, such as `ccn fit`.
        actions: The options of its parser.
    """
    if command.split()[-1] not in EXPLAINED:
        return None
    known = {name: action for action in actions for name in action.option_strings}
    lines = [
        f"usage: {command} [--config FILE ...] --data.folder FOLDER [options]",
        "",
        "Systems (--model.system NAME):",
    ]
    lines += [line for name in system_names() for line in _entry(name, _what_it_is(getattr(models, name)))]
    for title, options in GROUPS.items():
        shown = [line for name, words in options.items() if name in known for line in _option(known[name], name, words)]
        if shown:
            lines += ["", f"{title}:", *shown]
    lines += ["", "Tables and ranks:", *_strategy_options()]
    lines += [
        "",
        "More:",
        *_entry("--print_config", "print all options with their values, as YAML for --config"),
        *_entry(f"{SYSTEM}.help NAME", "options of a system"),
        *_entry("--help_all", "every option, also of the Trainer and of Lightning's classes"),
    ]
    return "\n".join(lines) + "\n"


def system_names() -> list[str]:
    """Names of the systems in `lightning_ccn.models`."""
    classes = {name: getattr(models, name) for name in models.__all__}
    return [name for name, found in classes.items() if issubclass(found, models.System) and found is not models.System]


def _option(action: Action, name: str, words: str) -> Iterator[str]:
    default = action.default
    text = words or _tidy(str(action.help))
    if default not in (None, SUPPRESS) and isinstance(default, (bool, int, float, str)):
        text += f" (default: {str(default).lower() if isinstance(default, bool) else default})"
    hint = getattr(action, "_typehint", None) or action.type  # jsonargparse has it under the first name
    choices = ["true", "false"] if hint is bool else [word for word in get_args(hint) if isinstance(word, str)]
    yield from _entry(f"{name} {{{','.join(choices)}}}" if choices else name, text)


def _strategy_options() -> Iterator[str]:
    """Options of the strategy, as its docstring explains them."""
    section = (getdoc(TorchRecStrategy) or "").partition("Args:\n")[2].partition("\n\n")[0]
    for name, text in re.findall(r"^    (\w+): ((?:.*\n?)(?:        .*\n?)*)", section, re.MULTILINE):
        yield from _entry(f"{STRATEGY}{name}", _tidy(text))


def _what_it_is(system: type) -> str:
    """The first sentence of the file of a system."""
    text = _tidy((sys.modules[system.__module__].__doc__ or "").partition("\n\n")[0])
    return re.sub(rf"^{system.__name__}[,:] ", "", text)


def _tidy(text: str) -> str:
    """The first sentence, in one line."""
    text = " ".join(text.split())
    first = re.split(r"(?<=[^.]\w)\. (?=[A-Z`])", text, maxsplit=1)[0].rstrip(".")
    return first[:1].lower() + first[1:] if first[1:2].islower() and " & " not in first else first


def _entry(name: str, text: str) -> Iterator[str]:
    lines = textwrap.wrap(text, WIDTH - INDENT)
    head = f"  {name}"
    if len(head) + 2 > INDENT:
        yield head
    elif lines:
        yield f"{head:{INDENT}}{lines.pop(0)}"
    else:
        yield head
    yield from (" " * INDENT + line for line in lines)

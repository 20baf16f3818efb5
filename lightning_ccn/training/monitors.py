"""Which metric chooses the best checkpoint, or ends a run early: the metric says whether high or low is better."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jsonargparse import Namespace

from lightning_ccn.errors import OptionError
from lightning_ccn.evaluation.metrics import ORDER_METRICS, metric_directions

FOLLOW = "auto"  # the default of checkpoint.mode: the metric's own direction
ORDERS = {f"val_{name}" for name in ORDER_METRICS}
WORDS = {"max": "higher", "min": "lower"}


def settle_monitors(options: Namespace, command: str | None) -> None:
    """Sets the modes of `checkpoint` and of callbacks such as EarlyStopping to the direction of what they monitor.

    Args:
        options: All options of the command.
        command: Only `fit` uses a monitor; the modes are set for all commands.

    Raises:
        OptionError: The metric is unknown, it has no direction, or the mode contradicts it.
    """
    for name, place in _monitors(options):
        monitor, mode = place.monitor, place.mode
        own = name == "checkpoint"
        if monitor is None:
            place.mode = "min" if mode == FOLLOW else mode  # unused, but ModelCheckpoint checks it
            continue
        if mode not in ("min", "max", FOLLOW):
            raise OptionError(f"{name}.mode is {mode}: it must be min or max; leave it out to follow {name}.monitor")
        if command == "fit" and monitor in ORDERS and not options.model.order_weight:
            raise OptionError(
                f"{name}.monitor is {monitor}: only a model with an order head has it; set model.order_weight above 0"
            )
        direction = _direction(name, monitor, _own_callbacks(options) or command != "fit")
        if direction is None and mode == FOLLOW:
            raise OptionError(
                f"{name}.monitor is {monitor}: nothing says whether high or low is better; "
                f"give --{name}.mode min or max"
            )
        # Lightning's callbacks have the default `min`, which cannot be told from a `min` that is given.
        contradicts = mode not in (direction, FOLLOW) and (own or mode != "min")
        if direction is not None and contradicts:
            raise OptionError(
                f"{name}.mode is {mode}, but a {WORDS[direction]} {monitor} is better: leave {name}.mode out, "
                f"or make it {direction}"
            )
        place.mode = direction or mode


def _monitors(options: Namespace) -> Iterator[tuple[str, Any]]:
    """Name of each place in the options that has a monitor and a mode, and the place."""
    yield "checkpoint", options.checkpoint
    callbacks = options.trainer.callbacks or []
    for callback in callbacks if isinstance(callbacks, list) else [callbacks]:
        arguments = callback.get("init_args")
        if arguments is not None and {"monitor", "mode"} <= set(arguments.keys()):
            yield f"trainer.callbacks.{callback.class_path.rpartition('.')[2]}", arguments


def _own_callbacks(options: Namespace) -> bool:
    """Whether a callback from outside of Lightning takes part, which may log metrics of any name."""
    callbacks = options.trainer.callbacks or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    return any(not callback.class_path.startswith("lightning.") for callback in callbacks)


def _direction(name: str, monitor: str, any_name: bool) -> str | None:
    """`max`, `min`, or None where nothing says which is better."""
    known = {f"val_{metric}": higher for metric, higher in metric_directions().items()}
    if monitor in known:
        higher = known[monitor]
        return None if higher is None else "max" if higher else "min"
    if not any_name and not monitor.startswith("train_"):
        raise OptionError(
            f"{name}.monitor is {monitor}: there is no such metric; validations have {', '.join(known)}, and training "
            "has train_loss_epoch"
        )
    return None

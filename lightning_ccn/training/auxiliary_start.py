"""What a run's `model.auxiliary_start` is where nobody sets it."""

from __future__ import annotations

from typing import Any

from lightning_ccn.models.system import System
from lightning_ccn.training.new_class import named


def auxiliary_start(options: Any) -> float | None:
    """The value for a fit with these options, so that `config.yaml` has a number.

    A fine-tuning has 1, since the losses have started the degree of its parent; other fits have `System.default_start`.

    Args:
        options: All options of a fit.

    Returns:
        The value; None if `model.system` is no class, so that only the module can tell.
    """
    given: float | None = options.model.auxiliary_start
    if given is not None:
        return given
    if options.finetune:
        return 1.0
    system = named(options.model.system.class_path)
    if not (isinstance(system, type) and issubclass(system, System)):
        return None
    return system.default_start(endless=options.trainer.max_epochs == -1 and options.trainer.max_steps == -1)

"""The number of parameters, in one line."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities import rank_zero_info


class ModelSize(ModelSummary):
    """Prints how many parameters a rank holds, in place of Lightning's table of the module's children.

    That table has a row for the model and rows of zeros for the metrics, and counts no FLOPs of embedding tables.
    """

    @staticmethod
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        total_flops: int,
        **summarize_kwargs: Any,
    ) -> None:
        """Prints the line."""
        rank_zero_info(f"{total_parameters:,} parameters on this rank, {trainable_parameters:,} of them trainable")

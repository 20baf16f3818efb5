"""The optimizers of the embedding tables: fbgemm kernels that update the rows inside the backward pass.

To add one, add an entry to `TABLE_OPTIMIZERS` and a test that trains, saves and resumes with it. Everything else
(memory estimates, plans, kernels, checkpoints) asks the entry. The kernel must run on every device that you train on;
the three below run on CPUs and GPUs. All of its memory must be in the state that fbgemm reports: Adam's step counter,
for example, is not, so a resumed run would restart its bias correction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fbgemm_gpu.split_embedding_configs import EmbOptimType

from lightning_ccn.sharding.errors import ShardingError

StateUnit = Literal["row", "weight"]
STATE_BYTES = 4  # fbgemm keeps every state in float32


@dataclass(frozen=True)
class TableOptimizer:
    """An optimizer that can train embedding tables.

    Attributes:
        name: The value of the strategy's `table_optimizer`.
        kernel: The fbgemm kernel. "Exact" kernels add up all gradients of a row before they update it once.
        state: Name of each state -> whether it holds one value per row or one per weight. Every state starts at zero.
            TorchRec names the first one `momentum1`; the others have the names of fbgemm's `get_optimizer_state`.
        column_wise_refusal: Why a table may not be split by columns, as a sentence; None if it may.
        fused_params: Further arguments of the kernel, besides the learning rate and epsilon.
    """

    name: str
    kernel: EmbOptimType
    state: Mapping[str, StateUnit]
    column_wise_refusal: str | None = None
    fused_params: Mapping[str, Any] = field(default_factory=dict)

    @property
    def accumulator(self) -> str | None:
        """Name of the first state, which is nonzero in every row that has been trained; None without state."""
        return next(iter(self.state), None)

    def state_shapes(self, rows: int, dim: int) -> dict[str, tuple[int, ...]]:
        """Shape of each state of a table with `rows` rows of `dim` weights."""
        return {name: (rows,) if unit == "row" else (rows, dim) for name, unit in self.state.items()}

    def state_row_bytes(self, dim: int) -> int:
        """Bytes of all state of one row of `dim` weights.

        >>> TABLE_OPTIMIZERS["adagrad"].state_row_bytes(dim=16)
        64
        """
        return STATE_BYTES * sum(1 if unit == "row" else dim for unit in self.state.values())

    def kernel_arguments(self, lr: float, eps: float) -> dict[str, Any]:
        """The `fused_params` of TorchRec's sharders."""
        return {"optimizer": self.kernel, "learning_rate": lr, "eps": eps, **self.fused_params}


TABLE_OPTIMIZERS: dict[str, TableOptimizer] = {
    optimizer.name: optimizer
    for optimizer in (
        TableOptimizer(
            name="rowwise_adagrad",
            kernel=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
            state={"momentum1": "row"},
            column_wise_refusal="row-wise AdaGrad uses the mean over a row's values, and each column shard would use "
            "the mean over its own columns",
        ),
        TableOptimizer(name="adagrad", kernel=EmbOptimType.EXACT_ADAGRAD, state={"momentum1": "weight"}),
        TableOptimizer(name="sgd", kernel=EmbOptimType.EXACT_SGD, state={}),
    )
}


def find_table_optimizer(name: str) -> TableOptimizer:
    """The entry of `TABLE_OPTIMIZERS`.

    Raises:
        ShardingError: There is no table optimizer of that name.
    """
    if name not in TABLE_OPTIMIZERS:
        raise ShardingError(f"table_optimizer={name!r}: use one of {', '.join(TABLE_OPTIMIZERS)}")
    return TABLE_OPTIMIZERS[name]

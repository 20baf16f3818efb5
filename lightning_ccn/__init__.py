"""Click-through-rate models with sharded embedding tables: CCN and the systems it is compared with.

The public names are imported when they are first used: `ccn doctor` must run where torch does not load, and a SLURM
rank must handle signals before it imports anything heavy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_ccn.data.datamodule import PageData
    from lightning_ccn.models.system import Prediction, System
    from lightning_ccn.module import CTRModule
    from lightning_ccn.sharding import TorchRecStrategy

__version__ = "0.2.0.dev0"
__all__ = ["CTRModule", "PageData", "Prediction", "System", "TorchRecStrategy"]

_MODULES = {
    "CTRModule": "lightning_ccn.module",
    "PageData": "lightning_ccn.data.datamodule",
    "Prediction": "lightning_ccn.models.system",
    "System": "lightning_ccn.models.system",
    "TorchRecStrategy": "lightning_ccn.sharding",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)

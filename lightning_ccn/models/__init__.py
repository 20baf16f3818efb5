"""The systems, one short file each."""

from lightning_ccn.models.ccn import CCN
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.models.tan import TAN

__all__ = ["CCN", "TAN", "Prediction", "System"]

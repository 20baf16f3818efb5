"""The systems, one short file each."""

from lightning_ccn.models.ccn import CCN
from lightning_ccn.models.crrn import CRRN
from lightning_ccn.models.dei2n import DEI2N
from lightning_ccn.models.dian import DIAN
from lightning_ccn.models.dihn import DIHN
from lightning_ccn.models.din import DIN
from lightning_ccn.models.sim import SIM
from lightning_ccn.models.system import Prediction, System
from lightning_ccn.models.tan import TAN
from lightning_ccn.models.wide_deep import WideDeep

__all__ = ["CCN", "CRRN", "DEI2N", "DIAN", "DIHN", "DIN", "SIM", "TAN", "Prediction", "System", "WideDeep"]

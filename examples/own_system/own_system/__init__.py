"""A package of your own: a system with a loss, a dense optimizer, a metric, and a converter.

A YAML file names its classes by `class_path`, which imports this package. Importing it registers the metric.
"""

from lightning_ccn.evaluation.metrics import METRICS
from own_system.metric import BrierScore
from own_system.optimizer import SignMomentum
from own_system.system import TriggerMatch

__all__ = ["BrierScore", "SignMomentum", "TriggerMatch"]

METRICS["brier"] = BrierScore

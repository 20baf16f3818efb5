"""Contextual collaborative networks for promotion recommendation, trained with Lightning and TorchRec."""

__version__ = "0.1.0"

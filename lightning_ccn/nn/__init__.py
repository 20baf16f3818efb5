"""Layers and losses that the systems are built from."""

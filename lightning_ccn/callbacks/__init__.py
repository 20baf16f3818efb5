"""Hooks of a run, one class a file."""

"""Callbacks of a run, one class per file. None of them draws a random number or changes what is trained."""

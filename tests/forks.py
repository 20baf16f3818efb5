"""Processes that are forked from one that has imported what a run needs, which would take each of them seconds."""

from __future__ import annotations

import multiprocessing

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.sharding.dlrm", "lightning_ccn.training.trainer_cli"])

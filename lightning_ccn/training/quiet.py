"""Hides messages of other packages that are useless to the user of `ccn`. Each is listed; all others are shown."""

from __future__ import annotations

import logging
import re
import warnings

# Beginnings of messages.
WARNINGS = (
    "`isinstance(treespec, LeafSpec)` is deprecated",  # from torch, about a call in lightning
    "`broadcast_buffers` is deprecated",  # from torch, about calls in torchrec
    "`torch.distributed.reduce_scatter_tensor` is deprecated",
    "`torch.distributed.all_gather_into_tensor` is deprecated",
    "`_get_pg_default_device` will be deprecated",  # from torch 2.11, about calls in torchrec
    "Multiple backends are registered with this ProcessGroup",
    "The ``compute`` method of metric",  # from torchmetrics: a rank may have nothing to score, others have
    "The `srun` command is available on your system but is not used",  # a run of one machine needs no srun
    "The dirpath has changed from",  # a test or a prediction writes into another folder than its checkpoint's run
    "Couldn't infer the batch indices fetched",  # predictions carry their page ids
    "It is recommended to use `self.log",  # from lightning: what is logged after an epoch is reduced over ranks already
)
DEPRECATION_WARNINGS_OF = ("fbgemm_gpu", "torchrec")  # packages whose own calls are deprecated
LOG_LINES = (  # from lightning
    "Seed set to",  # it is in config.yaml
    "TPU available:",
    "💡 Tip:",  # advertises other loggers
    "-" * 100 + "\ndistributed_backend=",
    "Loading `train_dataloader` to estimate",
    "Trainer already configured with model summary callbacks",  # which is ModelSize
    "`weights_only` was not set",
)
LIGHTNING_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")


# fbgemm 1.6.0 has no entry for itself in its table of versions; `ccn doctor` compares the versions.
IMPORT_LOG_LINES = ("_fbgemm_torch_compat_table has no entry",)


def hide_import_noise() -> None:
    """Installs the filters of what fbgemm logs while it is imported; to be called before."""
    logging.getLogger().addFilter(_is_import_news)


def hide_noise() -> None:
    """Installs the other filters; calling it again changes nothing."""
    for beginning in WARNINGS:
        warnings.filterwarnings("ignore", message=re.escape(beginning))
    for package in DEPRECATION_WARNINGS_OF:
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=rf"{package}\b")
    for name in LIGHTNING_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(_is_news)
    logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)  # it warns of how torchrec traces


def _is_import_news(record: logging.LogRecord) -> bool:
    return not any(line in record.getMessage() for line in IMPORT_LOG_LINES)


def _is_news(record: logging.LogRecord) -> bool:
    message = re.sub(r"^\[rank: \d+\] ", "", record.getMessage())
    return not message.startswith(LOG_LINES)

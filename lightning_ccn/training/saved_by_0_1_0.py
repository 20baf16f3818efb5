"""Runs of version 0.1.0, whose `config.yaml` lacks options that CCN had later, and whose defaults were others then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from lightning_ccn.conf_files import find_conf

# A saved file has all of CCN's options; whoever writes one leaves some of these out.
ALL = {"bound", "contrast_weight", "orientation", "detach_weights", "repulsion", "attraction", "attraction_ratio"}
LACKING = """
model:
  auxiliary_start: 1
  system:
    class_path: lightning_ccn.models.CCN
    init_args: {head_reads: degree, attraction_pairs: all}
"""


def options_it_lacks(file: Any) -> str | None:
    """YAML of the options that a run of 0.1.0 had without saying so.

    Args:
        file: The path of a YAML file, or YAML.

    Returns:
        The options; None if the file is not of such a run. What cannot be read is not, and the parser will say why.
    """
    try:
        path = find_conf(str(file))
        content = yaml.safe_load(path.read_text() if path.is_file() else str(file))
        options = content["model"]["system"]["init_args"]
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError):
        return None
    old = isinstance(options, Mapping) and options.keys() >= ALL and "head_reads" not in options
    return LACKING if old else None

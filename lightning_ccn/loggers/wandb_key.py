"""Where the W&B client finds an API key. Imports the standard library only, for `ccn doctor`."""

from __future__ import annotations

import netrc
import os
from pathlib import Path
from urllib.parse import urlsplit

DEFAULT_SERVER = "https://api.wandb.ai"


def server() -> str:
    """URL of the W&B server that the environment names, or of the public one."""
    return os.environ.get("WANDB_BASE_URL") or DEFAULT_SERVER


def has_key(url: str) -> bool:
    """Whether the client will find an API key for the server at `url` without asking the user.

    Not read: a key in the client's own settings files.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        hosts = netrc.netrc(path).hosts
    except (OSError, netrc.NetrcParseError):
        return False
    return urlsplit(url).netloc in hosts or urlsplit(DEFAULT_SERVER).netloc in hosts

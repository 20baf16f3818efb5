"""Whether the W&B server is worth trying."""

from __future__ import annotations

import os
import ssl
import urllib.error
import urllib.request

from lightning_ccn.loggers.wandb_key import has_key

PROBE_SECONDS = 5


def why_offline() -> str | None:
    """The reason for not trying the server; None if it should be tried."""
    import wandb

    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return f"WANDB_MODE={os.environ['WANDB_MODE']}"
    url = str(wandb.setup(wandb.Settings(silent=True)).settings.base_url)
    if not has_key(url):
        return "no API key: `wandb login` stores one"
    return why_unreachable(url)


def why_unreachable(url: str) -> str | None:
    """What keeps the server from answering; None if it gives any answer.

    The client's own first try would take half a minute.
    """
    try:
        urllib.request.urlopen(url, timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        reason = getattr(error, "reason", error)
        # the client has its own certificates
        return None if isinstance(reason, ssl.SSLError) else f"{url} cannot be reached: {reason}"
    return None

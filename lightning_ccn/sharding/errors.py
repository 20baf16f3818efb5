"""The error that this folder raises, and words for what the system says of a disk."""

from __future__ import annotations

import errno
import os


class ShardingError(ValueError):
    """A setting cannot work, or a checkpoint does not fit; the message names the problem and the remedy."""


_REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within the quota",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
    errno.EROFS: "name a folder on a disk that can be written",
    errno.EACCES: "name a folder that you may write to",
    errno.EPERM: "name a folder that you may write to",
}


def disk_words(error: OSError) -> str:
    """What went wrong with which file, and the remedy where there is one, in one line."""
    what = (os.strerror(error.errno) if error.errno else str(error)).replace("\n", " ")
    where = f": {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes | os.PathLike) else ""
    remedy = _REMEDIES.get(error.errno or 0)
    return f"{what}{where}" + (f"; {remedy}" if remedy else "")

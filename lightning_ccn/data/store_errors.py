"""Errors of an object store: which of them pass, and what each means in one line."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable
from typing import TypeVar

from lightning_ccn.errors import DataError

log = logging.getLogger(__name__)

Result = TypeVar("Result")

WAITS = (1.0, 4.0, 16.0)  # seconds before the second try, the third, ...; before each, pyarrow has tried for seconds
NO_BUCKET = "there is no such bucket; correct its name, or the endpoint of the store"
CREDENTIALS = (
    "give the credentials of somebody who may do this, as pyarrow takes them: AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the role of the machine; of Google, GOOGLE_APPLICATION_CREDENTIALS"
)
# What the error of a store says -> what that means, and the remedy. None of these passes.
LASTING = {
    r"Unable to load lib(jvm|hdfs)": "hdfs:// needs Java and Hadoop's libhdfs on this machine (JAVA_HOME, HADOOP_HOME)",
    r"NO_SUCH_BUCKET|bucket does not exist|Bucket '.*' not found": NO_BUCKET,
    r"ACCESS_DENIED|HTTP status 40[13]\b|Forbidden|PERMISSION_DENIED": f"the store refuses access; {CREDENTIALS}",
    r"INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT|INVALID_CLIENT_TOKEN_ID|MISSING_AUTHENTICATION"
    r"|EXPIRED_TOKEN|ExpiredToken|UNAUTHENTICATED": f"the store does not take the credentials; {CREDENTIALS}",
    r"[Nn]o such file|does not exist|NO_SUCH_KEY|RESOURCE_NOT_FOUND": "no such file",
}
NETWORK = "check the network, and the endpoint of the store (AWS_ENDPOINT_URL); the same command goes on"


def retried(act: Callable[[], Result], what: str, done: str = "read") -> Result:
    """Does something with a store; after an error that may pass, again, with a growing wait.

    Args:
        act: What to do. It may have been done in part before.
        what: The address, for messages.
        done: What is done with it, for messages.

    Raises:
        DataError: It failed for good; the message has the address, the cause and the remedy.
        OSError: This process has too many open files.
        ArrowException: The bytes are not what they should be, which no waiting changes.
    """
    tries = len(WAITS) + 1
    for attempt in range(1, tries + 1):
        try:
            return act()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):  # too many open files: not the store's fault
                raise
            why = words(error)
            for pattern, meaning in LASTING.items():
                if re.search(pattern, why):
                    raise DataError(f"{what}: {meaning} ({why})") from None
            if attempt == tries:
                raise DataError(f"{what}: cannot be {done}, after {tries} tries: {why}; {NETWORK}") from None
            wait = WAITS[attempt - 1]
            log.warning("%s: cannot be %s: %s; again in %g seconds", what, done, why, wait)
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def words(error: BaseException) -> str:
    """An error's text in one line, without the numbers of requests."""
    return re.sub(r" \(Request ID: [^)]*\)", "", " ".join(str(error).split()))[:400]

"""When a page of a request is shown, and when the behaviours were, for a model that reads how long ago that was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_ccn.data.time_gaps import gap_buckets
from lightning_ccn.serving.errors import RequestError, check_list, short_text
from lightning_ccn.serving.manifest import Manifest

if TYPE_CHECKING:
    from lightning_ccn.serving.request import Ids, Request

LAST_SECOND = (1 << 32) - 1  # of a time, as in training: milliseconds are beyond it
TOLERANCE = 86_400  # seconds by which the clocks of two machines may differ
Seconds = Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Times:
    """When a page and its behaviours were, in seconds since 1970.

    Attributes:
        page: The time of the page.
        short, long: Int64 [.], of the behaviours of the sequences that are read.
    """

    page: int
    short: np.ndarray
    long: np.ndarray

    def gaps(self, behaviours: np.ndarray) -> np.ndarray:
        """The buckets of the time between behaviours and the page, as training has them: int8 [n] of int64 [n]."""
        return gap_buckets(np.full(len(behaviours), self.page), behaviours)


def times_of(request: Request, manifest: Manifest) -> Times | None:
    """The times of a request; None for a model that does not read them.

    Raises:
        RequestError: A time is missing, none, not read, or before all that the user did.
    """
    for name, values in (("short_times", request.short_times), ("long_times", request.long_times)):
        check_list(values, name, "times")
    if not manifest.reads_gaps:
        given = {"time": request.time is not None}
        given |= {"short_times": len(request.short_times) > 0, "long_times": len(request.long_times) > 0}
        for name in (name for name, there in given.items() if there):
            raise RequestError(f"{name}: the model does not read when behaviours were; leave it out")
        return None
    short = _of_sequence("short", request.short, request.short_times)
    long = _of_sequence("long", request.long, request.long_times) if manifest.reads_long else np.zeros(0, np.int64)
    if request.time is not None:
        page = int(_seconds([request.time], "time", places=False)[0])
        _refuse_no_page_time(page, short, long)
        return Times(page, short, long)
    if len(short) or len(long):
        raise RequestError(
            "time: missing; the model reads how long ago behaviours were, so give the time of the request, in seconds "
            "since 1970"
        )
    return Times(0, short, long)  # without behaviours there is no gap


def _refuse_no_page_time(page: int, short: np.ndarray, long: np.ndarray) -> None:
    """Refuses a time at which no page can have been shown; its scores would look like any others."""
    remedy = "give when the page is shown, in seconds since 1970"
    if page == 0:
        raise RequestError(f"time: 0 is the year 1970; {remedy}")
    first = min((int(times[0]) for times in (short, long) if len(times)), default=0)
    if page < first - TOLERANCE:
        raise RequestError(
            f"time: {page} is more than a day before all behaviours, of which the first was at {first}; {remedy}"
        )


def _of_sequence(name: str, behaviours: Ids, times: Seconds) -> np.ndarray:
    """The times of a sequence's behaviours: int64 [behaviours]."""
    where = f"{name}_times"
    if len(times) != len(behaviours):
        found = f"has {len(times)} times for {len(behaviours)} behaviours" if len(times) else "missing"
        raise RequestError(
            f"{where}: {found}; the model reads how long ago behaviours were, so give a time for each of {name}, in "
            "seconds since 1970"
        )
    seconds = _seconds(times, where)
    if len(back := np.flatnonzero(np.diff(seconds) < 0)):
        at = back[0] + 1
        raise RequestError(f"{where}[{at}]: {seconds[at]} follows {seconds[at - 1]}; give behaviours oldest first")
    return seconds


def _seconds(values: Seconds, where: str, places: bool = True) -> np.ndarray:
    """Int64 [n]; `places`: whether an error says which of the values is wrong."""
    for at, value in enumerate(values):
        whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
        if not whole or not 0 <= value <= LAST_SECOND:
            place = f"{where}[{at}]" if places else where
            raise RequestError(
                f"{place}: {short_text(value)} is not a time; give whole seconds since 1970{_hint(value)}"
            )
    return np.array(values, np.int64)


def _hint(value: Any) -> str:
    """What a wrong time probably is, for the message."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        return ""
    if value > LAST_SECOND:
        return " (milliseconds: divide by 1000)"
    return f", such as {int(value)}" if value > 0 else ""  # a float

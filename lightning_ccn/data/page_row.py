"""Names of a page row's columns.

One row is one page view: a page that one user saw once, with the items exposed on it. Lists of the same group below
have equal lengths.
"""

from __future__ import annotations

PAGE_ID = "page_id"  # int64, unique in the folder
TIME = "time"  # int64, seconds since 1970
# int64, an item row: the item that the user clicked to enter the page; 0: the page has no trigger
TRIGGER = "trigger"
ITEMS, CLICKS, PURCHASES, POSITIONS = "items", "clicks", "purchases", "positions"  # the exposed items
SHORT_ITEMS, SHORT_TIMES = "short_items", "short_times"  # the user's recent behaviours, oldest first
LONG_ITEMS, LONG_TIMES = "long_items", "long_times"  # the user's long history, oldest first
# Known only in a synthetic world, and written only to its test split; the reader never reads these columns.
# Page clickiness is how click-prone a whole page is: a shift that the click logits of all its items share.
TRUE_PROBABILITY = "click_probability"  # P(click) given everything, including hidden intent and page clickiness
ATTAINABLE_PROBABILITY = "attainable_probability"  # P(click) with everything that no log shows integrated out
FOR_TRIGGER = "for_trigger"  # 1: the user came for the trigger; 0: for the promotion
HIDDEN = frozenset({TRUE_PROBABILITY, ATTAINABLE_PROBABILITY, FOR_TRIGGER})

ITEM = "item"  # name of the item table, and of the item feature that is the id itself
ITEM_AGE = "item_age"  # per-item number that converters write: ln(1 + hours since the item first appeared)
RESERVED = HIDDEN | frozenset(
    {PAGE_ID, TIME, TRIGGER, ITEMS, CLICKS, PURCHASES, POSITIONS, SHORT_ITEMS, SHORT_TIMES, LONG_ITEMS, LONG_TIMES}
)

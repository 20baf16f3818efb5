"""The names of a page row's columns. One row is one page view; nothing else in the project spells these names out."""

from __future__ import annotations

# A page view's columns. Lists of one page that stand under one heading have equal lengths.
PAGE_ID = "page_id"  # int64, unique in the folder
TIME = "time"  # int64, seconds since 1970
TRIGGER = "trigger"  # int64, an item row; 0: the page has no trigger
ITEMS, CLICKS, PURCHASES, POSITIONS = "items", "clicks", "purchases", "positions"  # the exposed items
SHORT_ITEMS, SHORT_TIMES = "short_items", "short_times"  # recent behaviours, oldest first
LONG_ITEMS, LONG_TIMES = "long_items", "long_times"  # the long history, oldest first
# What only a synthetic world knows. In the test split alone; the reader never asks for these columns.
TRUE_PROBABILITY = "click_probability"  # everything known, hidden intent and page clickiness included
ATTAINABLE_PROBABILITY = "attainable_probability"  # the same with what no log shows integrated out
ITEM = "item"  # the item table, and the item feature that is the id itself
RESERVED = frozenset(
    {PAGE_ID, TIME, TRIGGER, ITEMS, CLICKS, PURCHASES, POSITIONS, SHORT_ITEMS, SHORT_TIMES, LONG_ITEMS}
    | {LONG_TIMES, TRUE_PROBABILITY, ATTAINABLE_PROBABILITY}
)

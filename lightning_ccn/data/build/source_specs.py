"""The parts of a specification that say what a log calls things: impressions, events, users, items."""

from __future__ import annotations

from dataclasses import dataclass

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}  # microseconds
Count = int  # 1 or more
Seconds = int  # written as a length of time: 30m


@dataclass(frozen=True)
class TimeSpec:
    """A column of times.

    Attributes:
        column: Name of the column.
        unit: `s`, `ms`, `us` or `ns` since 1970, for numbers. None: seconds if the column is a number, and dates such
            as 2024-01-31 18:30:00 or 2024-01-31T18:30:00+01:00 if it is text. Columns that are timestamps need none.
        zone: Time zone of dates that have none, such as Europe/Copenhagen. None: UTC.
        offset: For numbers that do not count from 1970: what is added to each, in its unit.
    """

    column: str
    unit: str | None = None
    zone: str | None = None
    offset: int = 0


@dataclass(frozen=True)
class PageKeySpec:
    """Which impressions are one page view: those with equal values of all columns.

    Attributes:
        columns: Names of columns, such as a page id, or user, trigger and session.
        gap: Seconds; a page also ends where two of its impressions are further apart. None: it does not.
    """

    columns: tuple[str, ...]
    gap: Seconds | None = None


@dataclass(frozen=True)
class LabelSpec:
    """Where a label (clicked, bought) comes from: `column`, `ids`, or `within`.

    Attributes:
        column: A column with 0 or 1 for each impression.
        ids: A list column with the ids of the labelled items of the page, beside the list of its items.
        within: Seconds from the impression to the event, at most. Each event labels the latest impression of its item
            that its user saw before it.
        types: Types of these events. Empty: all.
    """

    column: str | None = None
    ids: str | None = None
    types: tuple[str, ...] = ()
    within: Seconds | None = None

    @property
    def of_events(self) -> bool:
        """Whether it comes from events."""
        return self.within is not None


@dataclass(frozen=True)
class FeatureSpec:
    """A categorical feature.

    Attributes:
        column: Name of the column. A list column is a feature with many values.
        name: Name of the feature. None: that of the column.
        table: Table of the feature; features may share one. None: one of the feature's own name.
        separator: Text between the values of a feature with many values that are written as one text.
    """

    column: str
    name: str | None = None
    table: str | None = None
    separator: str | None = None

    @property
    def called(self) -> str:
        """Name of the feature in the dataset."""
        return self.name or self.column

    @property
    def table_name(self) -> str:
        """Name of its table."""
        return self.table or self.called


@dataclass(frozen=True)
class PositionSpec:
    """A column of places on the page.

    Attributes:
        column: Name of the column.
        first: What the log calls the first place, 0 or 1; positions of the dataset count from 1. None: positions stay
            as they are.
    """

    column: str
    first: int | None = None


@dataclass(frozen=True)
class NumberSpec:
    """A number of an exposed item, of a page view or of a user.

    Attributes:
        column: Name of the column.
        name: Name of the number. None: that of the column.
    """

    column: str
    name: str | None = None

    @property
    def called(self) -> str:
        """Name of the number in the dataset."""
        return self.name or self.column


@dataclass(frozen=True)
class ExposureSpec:
    """The impressions: one row each, or one row a page with lists.

    Attributes:
        files: Patterns of files or folders, relative to the specification's folder.
        page: What makes a page view.
        user: Column of the user's id.
        item: Column of the exposed item, or list of items.
        time: When the item was shown.
        clicks: Whether it was clicked.
        trigger: Column of the item that the user tapped to enter the page. None: the log has no triggers.
        position: Place on the page. None, with lists: the place in the list, from 1 on.
        position_bias: How many positions get a bias of their own in training, see `Schema`. None: none.
        purchases: Whether it was bought.
        weight: How much the impression counts in the training loss. None: all count alike.
        numbers: Columns of numbers of an exposed item at that time.
        page_numbers: Columns of numbers of the page view, of which its first impression says the value.
        features: Categorical features of the page view.
        most_items: A page view with more impressions is dropped: nobody sees that many.
        without_trigger: Drop the impressions of a page's own trigger.
        delimiter: Of CSV files. None: a tab in .tsv files, else a comma.
    """

    files: tuple[str, ...]
    page: PageKeySpec
    user: str
    item: str
    time: TimeSpec
    clicks: LabelSpec
    trigger: str | None = None
    position: PositionSpec | None = None
    position_bias: Count | None = None
    purchases: LabelSpec | None = None
    weight: NumberSpec | None = None
    numbers: tuple[NumberSpec, ...] = ()
    page_numbers: tuple[NumberSpec, ...] = ()
    features: tuple[FeatureSpec, ...] = ()
    most_items: Count = 1000
    without_trigger: bool = False
    delimiter: str | None = None


@dataclass(frozen=True)
class EventSpec:
    """What users did: clicks, orders, ...

    Attributes:
        files: Patterns of files or folders.
        user: Column of the user's id.
        item: Column of the item, or list of items.
        time: When it happened.
        type: Column of the type. None: all events are of one type.
        order: Column of a number that orders a user's events of one time. Events that are still equal are ordered by
            the item's id, then by the type.
        delimiter: Of CSV files.
    """

    files: tuple[str, ...]
    user: str
    item: str
    time: TimeSpec
    type: str | None = None
    order: str | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class ProfileSpec:
    """The users' profile.

    Attributes:
        files: Patterns of files or folders.
        user: Column of the user's id.
        features: Categorical features.
        numbers: Columns of numbers of a user, which every page view of the user gets.
        since: Time from which a row holds; a page gets the user's latest row that has begun at the page's time. None:
            a user has one row.
        until: Time at which a row ends, for logs that say so; a page at that time or later does not get it. A row
            without it holds on, and one with an end that is no time is dropped. None: each row holds until the user's
            next one.
        delimiter: Of CSV files.
    """

    files: tuple[str, ...]
    user: str
    features: tuple[FeatureSpec, ...] = ()
    numbers: tuple[NumberSpec, ...] = ()
    since: TimeSpec | None = None
    until: TimeSpec | None = None
    delimiter: str | None = None


@dataclass(frozen=True)
class VectorSpec:
    """Frozen vectors of items: a list column of floats, of one length.

    Attributes:
        column: Name of the column.
        name: Name of the vectors. None: that of the column.
        files: Patterns of Parquet files or folders. Empty: those of the items.
        item: Column of the item's id there. None: that of the items.
    """

    column: str
    name: str | None = None
    files: tuple[str, ...] = ()
    item: str | None = None

    @property
    def called(self) -> str:
        """Name of the vectors in the dataset."""
        return self.name or self.column


@dataclass(frozen=True)
class CatalogueSpec:
    """The items.

    Attributes:
        files: Patterns of files or folders.
        item: Column of the item's id.
        attributes: Categorical features, with one value or many.
        category: Name of the attribute, with one value, by which the long sequence is searched.
        same_as_trigger: Names of attributes with one value, or `item`, in which a target is compared with its trigger,
            see `Schema`.
        ratio_to_trigger: Columns of numbers above 0, in which a target is compared with its trigger, see `Schema`.
        numbers: Columns of numbers, which every exposed item gets.
        vectors: Columns of frozen vectors.
        delimiter: Of CSV files.
    """

    files: tuple[str, ...]
    item: str
    attributes: tuple[FeatureSpec, ...] = ()
    category: str | None = None
    same_as_trigger: tuple[str, ...] = ()
    ratio_to_trigger: tuple[NumberSpec, ...] = ()
    numbers: tuple[NumberSpec, ...] = ()
    vectors: tuple[VectorSpec, ...] = ()
    delimiter: str | None = None

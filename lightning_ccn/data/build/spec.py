"""The specification of a raw log: what the log calls things, and what is to be made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lightning_ccn.data.build.source_specs import (
    CatalogueSpec,
    Count,
    EventSpec,
    ExposureSpec,
    FeatureSpec,
    LabelSpec,
    NumberSpec,
    ProfileSpec,
    Seconds,
    VectorSpec,
)
from lightning_ccn.data.page_row import ITEM
from lightning_ccn.data.schema import Feature, Schema, Table
from lightning_ccn.errors import DataError

USER = "user"  # name of the table of users, and of the feature that is the user's id
Moment = float  # written as a date, or as a share


@dataclass(frozen=True)
class SequenceSpec:
    """A behaviour sequence: the last events before the page view.

    Attributes:
        length: How many events at most.
        types: Types of events. Empty: all.
        days: Only events of the last days before the page view. None: however old.
        cut: Only for `long`: cut it as `ccn data cut` does, for a data.long_length up to this.
    """

    length: Count
    types: tuple[str, ...] = ()
    days: Count | None = None
    cut: Count | None = None


@dataclass(frozen=True)
class BehaviourSpec:
    """The two behaviour sequences of a page view."""

    short: SequenceSpec | None = None
    long: SequenceSpec | None = None


@dataclass(frozen=True)
class AdmissionSpec:
    """Which ids of a table get a row of their own.

    Attributes:
        at_least: How often an id must occur before the validation split begins. 0: every id that is used gets a row.
        hash: Number of rows, if ids are hashed to rows. None: the table has a vocabulary.
    """

    at_least: int = 0
    hash: Count | None = None


@dataclass(frozen=True)
class SplitSpec:
    """Where the splits begin: dates (seconds since 1970), or shares of the page views in order of time.

    Attributes:
        validation: Begin or share of the validation split.
        test: Begin or share of the test split, which has the latest pages.
        gap: Seconds before validation and before test whose page views are dropped.
    """

    validation: Moment = 0.1
    test: Moment = 0.2
    gap: Seconds = 0

    @property
    def by_date(self) -> bool:
        """Whether the splits begin at dates."""
        return self.test >= 1


@dataclass(frozen=True)
class LogSpec:
    """A specification: `ccn data build` makes a dataset folder of it."""

    exposures: ExposureSpec
    events: EventSpec | None = None
    users: ProfileSpec | None = None
    items: CatalogueSpec | None = None
    behaviours: BehaviourSpec = BehaviourSpec()
    vocabulary: dict[str, AdmissionSpec] = field(default_factory=dict)
    split: SplitSpec = SplitSpec()

    @property
    def profile(self) -> tuple[FeatureSpec, ...]:
        """Features of users."""
        return self.users.features if self.users else ()

    @property
    def attributes(self) -> tuple[FeatureSpec, ...]:
        """Attributes of items."""
        return self.items.attributes if self.items else ()

    @property
    def numbers(self) -> tuple[str, ...]:
        """Names of the numbers of exposed items: of the impression, then of the item."""
        return tuple(n.called for n in (*self.exposures.numbers, *(self.items.numbers if self.items else ())))

    @property
    def page_numbers(self) -> tuple[str, ...]:
        """Names of the numbers of page views: of the page, then of its user."""
        return tuple(n.called for n in (*self.exposures.page_numbers, *(self.users.numbers if self.users else ())))

    @property
    def labels(self) -> dict[str, LabelSpec]:
        """Labels by name."""
        given = {"clicks": self.exposures.clicks, "purchases": self.exposures.purchases}
        return {name: label for name, label in given.items() if label is not None}

    @property
    def sequences(self) -> dict[str, SequenceSpec]:
        """Behaviour sequences by name."""
        given = {"short": self.behaviours.short, "long": self.behaviours.long}
        return {name: sequence for name, sequence in given.items() if sequence is not None}

    @property
    def tables(self) -> list[str]:
        """Names of the tables."""
        features = (*self.exposures.features, *self.profile, *self.attributes)
        return list(dict.fromkeys([USER, ITEM, *(f.table_name for f in features)]))

    def rows_view(self, table: str) -> str:
        """Name of the engine's view of a table's ids and rows: SQL does not tell `City` from `city`."""
        return f"rows{self.tables.index(table)}"

    def admission(self, table: str) -> AdmissionSpec:
        """Which ids of a table get a row."""
        return self.vocabulary.get(table, AdmissionSpec())

    @property
    def amounts(self) -> tuple[NumberSpec, ...]:
        """Numbers of items whose ratio to the trigger's counts."""
        return self.items.ratio_to_trigger if self.items else ()

    @property
    def vectors(self) -> tuple[VectorSpec, ...]:
        """Frozen vectors of items."""
        return self.items.vectors if self.items else ()

    def schema(
        self,
        rows: dict[str, int],
        many: frozenset[str] = frozenset(),
        widths: Mapping[str, int] | None = None,
    ) -> Schema:
        """The schema of the dataset.

        Args:
            rows: Number of rows of each table, with row 0.
            many: Names of the features with many values.
            widths: Width of each vector, by name; None: they are not known yet.

        Raises:
            DataError: A name cannot be one of a dataset.
        """
        hashed = {name for name in self.tables if self.admission(name).hash}
        of_pages = [
            Feature(f.called, f.table_name, f.called in many) for f in (*self.profile, *self.exposures.features)
        ]
        return Schema(
            tables={name: Table(rows[name], "hash" if name in hashed else "dense") for name in self.tables},
            user=(Feature(USER, USER), *of_pages),
            attributes=tuple(Feature(f.called, f.table_name, f.called in many) for f in self.attributes),
            numbers=self.numbers,
            page_numbers=self.page_numbers,
            same_as_trigger=self.items.same_as_trigger if self.items else (),
            ratio_to_trigger=tuple(number.called for number in self.amounts),
            weight=self.exposures.weight.called if self.exposures.weight else None,
            position_bias=self.exposures.position_bias,
            vectors=dict.fromkeys((vector.called for vector in self.vectors), 1) | dict(widths or {}),
            category=self.items.category if self.items else None,
            cut_long_length=self.behaviours.long.cut if self.behaviours.long else None,
        )

    def refuse_contradictions(self) -> None:
        """Checks what no single value shows.

        Raises:
            DataError: Two values do not go together; the message names both.
        """
        self._refuse_column_of_two_roles()
        for name, label in self.labels.items():
            if sum([label.column is not None, label.ids is not None, label.of_events or bool(label.types)]) != 1:
                raise DataError(
                    f"exposures.{name}: give one of column, ids and within (with types, if events have some)"
                )
            if label.types and not label.of_events:
                raise DataError(f"exposures.{name}: types need within: {{types: [click], within: 30m}}")
            if label.of_events and self.events is None:
                raise DataError(f"exposures.{name}: takes labels from events, but there are no events; add events:")
        for name, sequence in self.sequences.items():
            if self.events is None:
                raise DataError(f"behaviours.{name}: needs events, and there are none; add events:")
            if sequence.cut is not None and name == "short":
                raise DataError("behaviours.short.cut: only the long sequence is cut; leave it out")
        used = [label.types for label in self.labels.values()] + [s.types for s in self.sequences.values()]
        if self.events and self.events.type is None and any(used):
            raise DataError("events.type: missing, but types of events are named; name the column of the type")
        if self.users and not self.users.features and not self.users.numbers:
            raise DataError("users: names neither features nor numbers; name one, or leave users: out")
        if self.users and self.users.until and not self.users.since:
            raise DataError("users.until: needs since, the time from which a row holds; add since:")
        names = [vector.called for vector in self.vectors]
        if len(set(names)) < len(names):
            raise DataError("items.vectors: two have one name; give each a name of its own")
        for name in self.vocabulary:
            if name not in self.tables:
                raise DataError(f"vocabulary.{name}: no such table; the tables are {', '.join(self.tables)}")
        for feature in self.attributes:
            if feature.table_name in (USER, ITEM):
                raise DataError(
                    f"items.attributes: '{feature.called}' has the table '{feature.table_name}'; name another"
                )
        split = self.split
        if split.by_date != (split.validation >= 1):
            raise DataError("split: validation and test must both be dates, or both be shares below 1")
        if split.by_date and split.validation > split.test:
            raise DataError("split: validation begins after test; give the earlier date to validation")
        if not split.by_date and split.validation + split.test >= 1:
            raise DataError(
                f"split: validation {split.validation} and test {split.test} leave nothing to train on; their sum must "
                "be below 1"
            )
        self.schema(dict.fromkeys(self.tables, 2))  # its names

    def _refuse_column_of_two_roles(self) -> None:
        """A column has the ids of users, or of items shown, or of triggers, or labels: never two of these."""
        shown, told = self.exposures, self.events
        roles = {f"exposures.{name}": getattr(shown, name) for name in ("user", "item", "trigger")}
        roles |= {f"exposures.{name}": label.column for name, label in self.labels.items()}
        of_events = {f"events.{name}": getattr(told, name) for name in ("user", "item")} if told else {}
        for of_table in (roles, of_events):
            first: dict[str, str] = {}
            for role, column in of_table.items():
                if column is not None and first.setdefault(column, role) != role:
                    raise DataError(
                        f"{role}: is column '{column}', and so is {first[column]}, which is something else; name the "
                        "column of each"
                    )

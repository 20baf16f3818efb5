"""The knobs of the promotion world: what each means, its unit and its range."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from lightning_ccn.errors import DataError

FILE = "world.yaml"  # of a folder that a world wrote: its knobs

RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "users": (2, 2**40),
    "items": (100, 2**31 - 2),
    "categories": (2, 1_000_000),
    "sellers": (1, 10_000_000),
    "dims": (2, 64),
    "interests": (1, 16),
    "first_promotion": (0, 1_000),
    "promotions": (1, 100),
    "train_pages": (1, 2**32 - 1),
    "validation_pages": (1, 2**32 - 1),
    "test_pages": (1, 2**32 - 1),
    "page_min": (1, 100),
    "page_max": (1, 100),
    "near_trigger": (0, 1),
    "near_interests": (0, 1),
    "popular": (0, 1),
    "short_length": (1, 1_000),
    "long_length": (1, 1_000),
    "exploration": (0, 1),
    "popularity_skew": (0, 5),
    "click_rate": (0.001, 0.9),
    "purchase_rate": (0.001, 0.9),
    "intent_spread": (0.2, 50),
    "intent_fit": (0, 10),
    "promotion_mix": (0, 5),
    "trigger_pull": (0, 20),
    "interest_pull": (0, 20),
    "deal_pull": (0, 10),
    "taste_pull": (0, 10),
    "quality_pull": (0, 10),
    "position_effect": (0, 5),
    "page_clickiness": (0, 5),
}


@dataclass(frozen=True)
class WorldConfig:
    """A promotion world and the page views to draw from it.

    Logit means: added to the logit of a click. With more users or items, and all else but counts of pages and
    promotions the same, the old ones keep their parameters: so a later folder (`first_promotion`, larger `users` and
    `items`) continues an earlier one. Its histories, also of old users, may name the new items.

    Attributes:
        seed: of everything, 0 or more; the same seed writes the same bytes (on the same machine and versions).
        users: user ids, 2 and more; the user table has one row more, for the unknown.
        items: item ids, 100 and more, at least as many as categories and four full pages.
        categories: item categories, 2 and more.
        sellers: sellers, 1 and more; half the variance of an item's quality is its seller's.
        dims: latent dimensions of interests and items, 2 to 64.
        interests: interests of a user, 1 to 16; each is a category and a direction within it.
        first_promotion: number of the first promotion in this folder, 0 to 1,000; promotion k lasts week k.
        promotions: promotions to train and validate on, 1 to 100, in time order, with equal page views each.
        unseen_test: test pages come from the promotion after the last one (the volatile mix); if not, from
            the end of the last one (with `promotions` 1, the stable mix: one promotion throughout).
        train_pages: page views to train on, 1 and more. The default gives each user 38 impressions to train on, and
            each item 105: the density of the CCN paper's data (38 and 122).
        validation_pages: page views after them, at the end of the last promotion; 1 and more.
        test_pages: page views after those, 1 and more.
        page_min: fewest exposed items of a page, 1 to 100.
        page_max: most exposed items of a page, page_min to 100; the number is uniform between the two.
        near_trigger: share of exposed items that the recommender picks by likeness to the trigger, 0 to 1.
        near_interests: share picked by the user's interests, 0 to 1.
        popular: share picked by popularity, 0 to 1. What is left comes from the promotion: items with a good deal
            in the categories that it features.
        short_length: most recent behaviours of the short sequence, 1 to 1,000.
        long_length: most behaviours of the long sequence, in which the short one is the end; short_length to 1,000.
            Users have from 5 up to all of it.
        exploration: share of behaviours outside the user's interests, 0 to 1.
        popularity_skew: 0 (uniform) to 5; a draw of rank v^(1 + skew), v uniform, from a category's items.
        click_rate: mean click probability of an exposed training item, .001 to .9; the intercept is solved for it.
        purchase_rate: mean purchase probability of a clicked training item, .001 to .9; solved likewise.
        intent_spread: a of the Beta(a, a) from which each user's inclination to come for the trigger
            is drawn, .2 (nearly everyone always the same way) to 50 (everyone half and half).
        intent_fit: logit of coming for the trigger, per unit of the trigger's fit to the user's interests; 0 to 10.
        promotion_mix: std of the logit of coming for the trigger over promotions, and once more over (promotion,
            trigger category): how much the intent mix changes from one promotion to the next; 0 to 5.
        trigger_pull: logit per unit of likeness to the trigger (a cosine), for who came for the trigger; 0 to 20.
        interest_pull: logit per unit of fit to the user's interests (a cosine), for who came for the promotion;
            0 to 20.
        deal_pull: logit per std of the item's deal, for who came for the promotion; 0 to 10.
        taste_pull: logit per std of the user's taste for promotions, for who came for the promotion; 0 to 10.
        quality_pull: logit per std of the item's quality; 0 to 10.
        position_effect: logit lost per unit of ln(position), position 1 being the first; 0 to 5.
        page_clickiness: std of the logit shift that all items of one page view share, which no log shows; 0 to 5.

    Raises:
        DataError: a value is out of its range, or does not fit another.
    """

    seed: int = 0
    users: int = 14_000
    items: int = 5_000
    categories: int = 40
    sellers: int = 400
    dims: int = 8
    interests: int = 3
    first_promotion: int = 0
    promotions: int = 4
    unseen_test: bool = True
    train_pages: int = 37_500
    validation_pages: int = 10_000
    test_pages: int = 20_000
    page_min: int = 8
    page_max: int = 20
    near_trigger: float = 0.3
    near_interests: float = 0.3
    popular: float = 0.2
    short_length: int = 20
    long_length: int = 100
    exploration: float = 0.2
    popularity_skew: float = 1.0
    click_rate: float = 0.2
    purchase_rate: float = 0.1
    intent_spread: float = 0.6
    intent_fit: float = 1.0
    promotion_mix: float = 1.0
    trigger_pull: float = 3.0
    interest_pull: float = 3.0
    deal_pull: float = 0.6
    taste_pull: float = 0.6
    quality_pull: float = 0.6
    position_effect: float = 0.15
    page_clickiness: float = 1.25

    def __post_init__(self) -> None:
        kinds: dict[str, tuple[tuple[type, ...], str]] = {
            "int": ((int,), "a whole number"),
            "float": ((int, float), "a number"),
            "bool": ((bool,), "true or false"),
        }
        for field in fields(self):
            kind, words = kinds[str(field.type)]
            if not isinstance(value := getattr(self, field.name), kind):
                raise DataError(f"world: {field.name} is {value!r}; it must be {words}")
        for name, (low, high) in RANGES.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise DataError(f"world: {name} is {value:_}; choose from {low:_} to {high:_}")
        shares = self.near_trigger + self.near_interests + self.popular
        if shares > 1 + 1e-9:
            raise DataError(
                f"world: near_trigger + near_interests + popular is {shares:g}; lower one, they are shares of 1"
            )
        pairs = (("page_min", "page_max"), ("short_length", "long_length"), ("categories", "items"))
        for less, more in pairs:
            low, high = getattr(self, less), getattr(self, more)
            if low > high:
                raise DataError(f"world: {less} is {low:_} and {more} {high:_}; raise {more} or lower {less}")
        if self.items < 4 * self.page_max:
            raise DataError(
                f"world: items is {self.items} and page_max {self.page_max}; items of a page are distinct: "
                f"raise items to {4 * self.page_max} or lower page_max"
            )

    def to_yaml(self) -> str:
        """The text of world.yaml."""
        return "# The promotion world that wrote this folder: `World(WorldConfig.load(folder))`.\n" + yaml.safe_dump(
            asdict(self), sort_keys=False
        )

    @staticmethod
    def load(folder: str | Path) -> WorldConfig:
        """The knobs of the world that wrote a folder.

        Raises:
            DataError: no world wrote this folder, or its world.yaml is not of this version.
        """
        path = Path(folder) / FILE
        try:
            plain: Any = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; only folders made by `ccn data world` have one") from None
        except yaml.YAMLError as error:
            raise DataError(f"{path}: not YAML: {error}") from None
        known = {field.name for field in fields(WorldConfig)}
        if not isinstance(plain, dict) or set(plain) != known:
            odd = sorted(set(plain) ^ known) if isinstance(plain, dict) else [type(plain).__name__]
            raise DataError(f"{path}: unknown or missing knobs: {', '.join(odd)}; write the folder again")
        return WorldConfig(**plain)

"""The knobs of the promotion world, with their meaning, unit and range."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import yaml

from lightning_ccn.data.places import Place, place
from lightning_ccn.errors import DataError

FILE = "world.yaml"  # stores the knobs in a dataset folder that a world wrote
LATER_KNOBS = ("scenarios",)  # which older files do not have; they are not written while they have their defaults

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
    "scenarios": (1, 100),
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

    A user enters the page of a promotion by clicking an item, the trigger. A user who comes "for the trigger" looks for
    similar items; a user who comes "for the promotion" looks for what suits their interests. "Logit" below means an
    addend to the logit of the click probability. With more users or items, and otherwise equal knobs (except numbers of
    pages and promotions), the old users and items keep their parameters. So a later folder (`first_promotion`, larger
    `users` and `items`) continues an earlier one. In its histories, new items may appear, also for old users.

    Attributes:
        seed: Seed of all draws, 0 or more; the same seed writes the same bytes (on the same machine and versions).
        users: Number of users, 2 or more.
        items: Number of items, 100 or more, at least `categories` and at least four full pages.
        categories: Number of item categories, 2 or more.
        sellers: Number of sellers, 1 or more; a seller accounts for half the variance of its items' quality.
        dims: Latent dimensions of interests and items, 2 to 64.
        interests: Interests per user, 1 to 16; each is a category and a direction within it.
        first_promotion: Number of the first promotion in this folder, 0 to 1,000; promotion k lasts week k.
        promotions: Number of promotions for training and validation, 1 to 100, in time order, of equal size.
        unseen_test: Whether test pages come from a further promotion, so that the mix of intents changes. If not, they
            come from the end of the last one (with `promotions` 1, all pages have the same mix).
        scenarios: Number of scenarios (places of the shop where pages are shown), 1 to 100. With 1, all pages are alike
            and no column says so. With more, each page view belongs to one of them, all equally often, and the column
            `scenario` names it. They differ in intent mix, click rate, page clickiness, categories and page length,
            within the bounds that `scenarios.Scenarios` states.
        train_pages: Page views for training, 1 or more. The default gives 38 training impressions per user and
            105 per item, like the data of the CCN paper (38 and 122).
        validation_pages: Page views for validation, at the end of the last promotion; 1 or more.
        test_pages: Page views for the test, after the others; 1 or more.
        page_min: Smallest number of exposed items per page, 1 to 100.
        page_max: Largest number of exposed items per page, page_min to 100; the number is uniform between the two.
        near_trigger: Share of exposed items that the recommender picks by similarity to the trigger, 0 to 1.
        near_interests: Share of exposed items that it picks by the user's interests, 0 to 1.
        popular: Share of exposed items that it picks by popularity, 0 to 1. The remaining items come from the
            promotion: items with a good deal in the categories that it features.
        short_length: Largest length of the short sequence, the most recent behaviours; 1 to 1,000.
        long_length: Largest length of the long sequence, which ends with the short one; short_length to 1,000.
            Users have 5 behaviours or more.
        exploration: Share of behaviours outside the user's interests, 0 to 1.
        popularity_skew: Skew of popularity, 0 (uniform) to 5: a category's items are drawn at the relative popularity
            rank v^(1 + skew), where v is uniform.
        click_rate: Mean click probability of an exposed training item, .001 to .9; sets the intercept of the logit.
        purchase_rate: Mean purchase probability of a clicked training item, .001 to .9; sets its intercept likewise.
        intent_spread: Parameter a of the distribution Beta(a, a) of each user's inclination to come for the trigger,
            from .2 (nearly every user always comes for the same reason) to 50 (every user is undecided).
        intent_fit: Logit of coming for the trigger, per unit of the trigger's fit to the user's interests; 0 to 10.
        promotion_mix: Std, over promotions, of the logit of coming for the trigger; the same once more over pairs of
            promotion and trigger category. It sets how much the mix of intents changes between promotions; 0 to 5.
        trigger_pull: Logit per unit of similarity to the trigger (a cosine), if the user came for the trigger;
            0 to 20.
        interest_pull: Logit per unit of fit to the user's interests (a cosine), if the user came for the promotion;
            0 to 20.
        deal_pull: Logit per std of the item's deal, if the user came for the promotion; 0 to 10.
        taste_pull: Logit per std of the user's taste for promotions, if the user came for the promotion; 0 to 10.
        quality_pull: Logit per std of the item's quality; 0 to 10.
        position_effect: Decrease of the logit per unit of ln(position), where the first position is 1; 0 to 5.
        page_clickiness: Std of the page clickiness, a logit shift that all items of a page view share and no log
            shows; 0 to 5.

    Raises:
        DataError: A value is out of its range, or conflicts with another.
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
    scenarios: int = 1
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
            kind, description = kinds[str(field.type)]
            if not isinstance(value := getattr(self, field.name), kind):
                raise DataError(f"world: {field.name} is {value!r}; it must be {description}")
        for name, (low, high) in RANGES.items():
            if not low <= (value := getattr(self, name)) <= high:
                raise DataError(f"world: {name} is {value:_}; choose from {low:_} to {high:_}")
        shares = self.near_trigger + self.near_interests + self.popular
        if shares > 1 + 1e-9:
            raise DataError(
                f"world: near_trigger + near_interests + popular is {shares:g}; the shares must not exceed 1 in sum"
            )
        pairs = (("page_min", "page_max"), ("short_length", "long_length"), ("categories", "items"))
        for less, more in pairs:
            low, high = getattr(self, less), getattr(self, more)
            if low > high:
                raise DataError(f"world: {less} is {low:_} and {more} {high:_}; raise {more} or lower {less}")
        if self.items < 4 * self.page_max:
            raise DataError(
                f"world: items is {self.items} and page_max {self.page_max}; items of a page are distinct, so "
                f"raise items to {4 * self.page_max} or lower page_max"
            )

    def to_yaml(self) -> str:
        """The contents of world.yaml."""
        plain = asdict(self)
        for name in LATER_KNOBS:
            if plain[name] == DEFAULTS[name]:
                del plain[name]  # so that an older version reads the file, and a world's bytes stay what they were
        return "# The promotion world that wrote this folder: `World(WorldConfig.load(folder))`.\n" + yaml.safe_dump(
            plain, sort_keys=False
        )

    @staticmethod
    def load(folder: str | Place) -> WorldConfig:
        """The knobs of the world that wrote a dataset folder.

        Raises:
            DataError: No world wrote this folder, or its world.yaml is from another version.
        """
        path = place(folder) / FILE
        try:
            plain: Any = yaml.safe_load(path.read_text())
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; only folders made by `ccn data world` have one") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from None
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or 2024-13-45
            raise DataError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
        if isinstance(plain, dict):
            plain = {name: DEFAULTS[name] for name in LATER_KNOBS} | plain
        known = set(DEFAULTS)
        if not isinstance(plain, dict) or set(plain) != known:
            odd = sorted(map(str, set(plain) ^ known)) if isinstance(plain, dict) else [type(plain).__name__]
            raise DataError(f"{path}: unknown or missing knobs: {', '.join(odd)}; write the folder again")
        return WorldConfig(**plain)


DEFAULTS: dict[str, Any] = {field.name: field.default for field in fields(WorldConfig)}
